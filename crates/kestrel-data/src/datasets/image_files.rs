//! `ImageFiles`: data sets of encoded images, which are read and decoded when asked for.

use std::path::PathBuf;

use super::{Dataset, Skipped};
use crate::error::Result;
use crate::fingerprint::{Fingerprint, FingerprintHasher};

/// A data set whose samples are image files, in a folder or within an archive.
pub trait ImageFiles: Dataset {
    /// Where a sample's file is, for people; within an archive, the archive's path and the entry's name.
    ///
    /// # Panics
    /// May panic if `index >= len()`.
    fn path(&self, index: usize) -> PathBuf;

    /// A sample's file, as it is.
    ///
    /// # Errors
    /// [`crate::Error::Io`], and [`crate::Error::Changed`] if it is not as it was when the data set was opened.
    ///
    /// # Panics
    /// May panic if `index >= len()`.
    fn read(&self, index: usize) -> Result<Vec<u8>>;

    /// What was left out when the folder or the whole archive was opened. Nothing by default.
    fn skipped(&self) -> &[Skipped] {
        &[]
    }
}

/// The identity of image files: class names, labels, each file's path below the root and its size.
pub(super) fn fingerprint<'a>(
    classes: &[String],
    files: impl ExactSizeIterator<Item = (u32, &'a [u8], u64)> + Clone,
) -> Fingerprint {
    let mut hasher = FingerprintHasher::new("files", classes, files.clone().map(|(label, ..)| label));
    for (_, name, bytes) in files {
        hasher.field(name);
        hasher.number(bytes);
    }
    hasher.finish()
}
