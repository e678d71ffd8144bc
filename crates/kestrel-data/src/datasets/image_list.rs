//! `ImageList`: image files without labels, in the order in which a person named them, to be predicted.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::Dataset;
use crate::decode::{self, Choose};
use crate::error::{Error, Result};
use crate::fingerprint::{Fingerprint, FingerprintHasher};
use crate::pixels::Image;

/// Image files, decoded when asked for. They have no classes; every label is 0.
///
/// A file that cannot be read is a bad sample like one that cannot be decoded ([`Error::UnreadableImage`]): each was named by
/// itself, and says nothing of the others.
#[derive(Clone, Debug)]
pub struct ImageList {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    path: PathBuf,
    /// The file's contents, where they do not lie at the path.
    bytes: Option<Vec<u8>>,
}

impl ImageList {
    /// The files at `paths`, which are not looked at yet.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let entries = paths.into_iter().map(|path| Entry { path, bytes: None });
        Self {
            entries: entries.collect(),
        }
    }

    /// Adds an image whose file is in memory, under a name.
    #[must_use]
    pub fn with_bytes(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.entries.push(Entry {
            path: name.into(),
            bytes: Some(bytes),
        });
        self
    }

    /// Where an image was said to be.
    ///
    /// # Panics
    /// If `index >= len()`.
    pub fn path(&self, index: usize) -> &Path {
        &self.entries[index].path
    }

    fn read(&self, index: usize) -> Result<Cow<'_, [u8]>> {
        let Entry { path, bytes } = &self.entries[index];
        if let Some(bytes) = bytes {
            return Ok(Cow::Borrowed(bytes));
        }
        let read = std::fs::read(path).map_err(|source| Error::UnreadableImage {
            path: path.clone(),
            source,
        });
        read.map(Cow::Owned)
    }
}

impl Dataset for ImageList {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn label(&self, _: usize) -> u32 {
        0
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        self.image_part(index, &mut |_, _| None)
    }

    fn image_part(&self, index: usize, choose: Choose<'_>) -> Result<Image<'_>> {
        decode::decode_part(&self.read(index)?, self.path(index), choose)
    }

    fn describe(&self) -> String {
        match self.entries.as_slice() {
            [one] => one.path.display().to_string(),
            several => format!("{} images", several.len()),
        }
    }

    fn describe_sample(&self, index: usize) -> String {
        self.path(index).display().to_string()
    }

    /// Over the paths alone.
    fn fingerprint(&self) -> Result<Fingerprint> {
        let labels = self.entries.iter().map(|_| 0);
        let mut hasher = FingerprintHasher::new("list", &[], labels);
        for entry in &self.entries {
            hasher.field(entry.path.as_os_str().as_encoded_bytes());
        }
        Ok(hasher.finish())
    }

    fn content(&self, index: usize) -> Result<Option<Fingerprint>> {
        Ok(Some(Fingerprint::of(&self.read(index)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_a_bad_sample_and_not_the_end() {
        let list = ImageList::new(vec!["no-such-file.png".into()]).with_bytes("-", b"GIF89a".to_vec());
        assert_eq!(list.len(), 2);
        for index in 0..2 {
            let error = list.image(index).unwrap_err();
            assert!(error.is_bad_image(), "{error}");
            assert!(error.to_string().contains(&list.describe_sample(index)), "{error}");
        }
    }
}
