//! CIFAR-10's binary layout: `data_batch_{1..5}.bin` and `test_batch.bin`, in a folder or in the official archive.
//!
//! A file is 10,000 records of 3,073 bytes: the label, then the red, the green and the blue plane, each 32x32, row by row.

mod cache;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::{InMemory, Splits};
use crate::archive::{self, Expected};
use crate::error::{Error, Result};
use crate::pixels::CHANNELS;

pub use cache::open_cached;
#[cfg(feature = "download")]
pub use cache::{ARCHIVE, open_or_download};

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
pub const FOLDER: &str = "cifar-10-batches-bin";
/// The official archive's file name.
pub const ARCHIVE_NAME: &str = "cifar-10-binary.tar.gz";

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const RECORD: usize = 1 + CHANNELS * PLANE;
const RECORDS: usize = 10_000;
/// Bytes of each of the six files.
pub const FILE_BYTES: u64 = (RECORDS * RECORD) as u64;

const TRAIN_FILES: [&str; 5] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
];
const TEST_FILES: [&str; 1] = ["test_batch.bin"];

/// What the official archive holds: the six files, and two small ones that are not read.
fn expected_entries() -> Vec<Expected> {
    let batches = TRAIN_FILES
        .iter()
        .chain(&TEST_FILES)
        .map(|name| Expected::exactly(format!("{FOLDER}/{name}"), FILE_BYTES));
    let extra = ["batches.meta.txt", "readme.html"]
        .iter()
        .map(|name| Expected::at_most(format!("{FOLDER}/{name}"), 4096));
    batches.chain(extra).collect()
}

/// Whether `path` is, or contains, CIFAR-10's binary folder or archive.
pub fn is_binary(path: &Path) -> bool {
    binary_folder(path).is_some() || archive_file(path).is_some()
}

/// The folder with the six files: `path` itself or `path/cifar-10-batches-bin`.
fn binary_folder(path: &Path) -> Option<PathBuf> {
    let has_batch = |folder: &Path| {
        TRAIN_FILES
            .iter()
            .chain(&TEST_FILES)
            .any(|name| folder.join(name).is_file())
    };
    [path.to_path_buf(), path.join(FOLDER)]
        .into_iter()
        .find(|folder| has_batch(folder))
}

/// The archive: `path` itself, by its name's ending, or `path/cifar-10-binary.tar.gz`.
fn archive_file(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_string_lossy();
    if path.is_file() {
        return (name.ends_with(".tar.gz") || name.ends_with(".tgz")).then(|| path.to_path_buf());
    }
    Some(path.join(ARCHIVE_NAME)).filter(|path| path.is_file())
}

/// Opens CIFAR-10's binary folder, the folder that contains it, or its archive.
///
/// # Errors
/// [`Error::UnknownLayout`] if `path` is none of these; [`Error::Truncated`] or [`Error::TrailingBytes`] for a file that has
/// not 30,730,000 bytes; [`Error::LabelOutOfRange`]; those of [`archive::read`]; [`Error::Io`].
pub fn open(path: &Path) -> Result<Splits<InMemory>> {
    let _span = tracing::info_span!("load", source = %path.display()).entered();
    if let Some(folder) = binary_folder(path) {
        let file = |name: &&str| read_batch(&folder.join(name));
        return from_batches(
            &folder,
            TRAIN_FILES.iter().map(file).collect::<Result<_>>()?,
            TEST_FILES.iter().map(file).collect::<Result<_>>()?,
        );
    }
    if let Some(archive) = archive_file(path) {
        let mut entries = archive::read(&archive, &expected_entries())?;
        let mut file = |name: &&str| -> Result<Vec<u8>> {
            let entry = format!("{FOLDER}/{name}");
            entries.remove(&entry).ok_or(Error::ArchiveMissing {
                path: archive.clone(),
                entry,
            })
        };
        let train = TRAIN_FILES.iter().map(&mut file).collect::<Result<_>>()?;
        let test = TEST_FILES.iter().map(&mut file).collect::<Result<_>>()?;
        return from_batches(&archive, train, test);
    }
    Err(Error::UnknownLayout {
        path: path.to_path_buf(),
        expected: "cifar-10-batches-bin with data_batch_1.bin to test_batch.bin, or cifar-10-binary.tar.gz",
    })
}

/// Reads one of the six files, after a look at its size.
fn read_batch(path: &Path) -> Result<Vec<u8>> {
    let got = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    check_size(path, got)?;
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    check_size(path, bytes.len() as u64)?;
    Ok(bytes)
}

fn check_size(path: &Path, got: u64) -> Result<()> {
    let (path, expected) = (path.to_path_buf(), FILE_BYTES);
    match got.cmp(&expected) {
        std::cmp::Ordering::Less => Err(Error::Truncated { path, expected, got }),
        std::cmp::Ordering::Greater => Err(Error::TrailingBytes { path, expected, got }),
        std::cmp::Ordering::Equal => Ok(()),
    }
}

fn from_batches(source: &Path, train: Vec<Vec<u8>>, test: Vec<Vec<u8>>) -> Result<Splits<InMemory>> {
    let split = |name: &str, files: Vec<Vec<u8>>, names: &[&str]| -> Result<Arc<InMemory>> {
        let mut pixels = vec![0; files.len() * RECORDS * CHANNELS * PLANE];
        let mut labels = Vec::with_capacity(files.len() * RECORDS);
        let outputs = pixels.chunks_exact_mut(RECORDS * CHANNELS * PLANE);
        for ((bytes, name), out) in files.iter().zip(names).zip(outputs) {
            let file_labels = bytes.chunks_exact(RECORD).map(|record| u64::from(record[0]));
            super::check_labels(&source.join(name), file_labels.clone(), CLASSES.len())?;
            labels.extend(file_labels.map(|label| label as u32));
            let records = bytes
                .par_chunks_exact(RECORD)
                .zip(out.par_chunks_exact_mut(CHANNELS * PLANE));
            records
                .with_min_len(256)
                .for_each(|(record, out)| interleave(&record[1..], out));
        }
        let classes = CLASSES.map(String::from).to_vec();
        let label = PathBuf::from(format!("CIFAR-10 {name} ({})", source.display()));
        Ok(Arc::new(InMemory::new(pixels, SIDE, SIDE, labels, classes, label)?))
    };
    Ok(Splits {
        train: split("train", train, &TRAIN_FILES)?,
        test: split("test", test, &TEST_FILES)?,
    })
}

/// From planes `[3, 32, 32]` to pixels `[32, 32, 3]`.
fn interleave(planes: &[u8], pixels: &mut [u8]) {
    let (red, rest) = planes.split_at(PLANE);
    let (green, blue) = rest.split_at(PLANE);
    let channels = red.iter().zip(green).zip(blue);
    for (pixel, ((&red, &green), &blue)) in pixels.chunks_exact_mut(CHANNELS).zip(channels) {
        pixel.copy_from_slice(&[red, green, blue]);
    }
}

/// The short names of [`CLASSES`] if these are the folder names of CIFAR-10's classes.
pub(super) fn short_names(classes: &[String]) -> Option<Vec<String>> {
    (classes == FOLDER_CLASSES).then(|| CLASSES.map(String::from).to_vec())
}
