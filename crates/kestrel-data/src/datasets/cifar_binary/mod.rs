//! The binary layout that CIFAR-10 and CIFAR-100 share: records of label bytes and three planes, in a folder or an archive.
//!
//! A record is the label (CIFAR-100: the coarse label, then the fine one, which counts), then the red, the green and the blue
//! plane, each 32x32, row by row. Which files there are is [`Layout`]'s to say.

mod cache;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::{InMemory, Splits, check_labels, is_tar_gz};
use crate::archive::{self, Expected};
use crate::error::{Error, Result};
use crate::pixels::CHANNELS;

/// Height and width of the images.
pub(super) const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const IMAGE: usize = CHANNELS * PLANE;

/// The files of one data set.
#[derive(Debug)]
pub(super) struct Layout {
    /// The data set's name, for people.
    pub(super) name: &'static str,
    /// The folder in the official archive.
    pub(super) folder: &'static str,
    /// The official archive's file name.
    pub(super) archive_name: &'static str,
    /// The training files.
    pub(super) train: &'static [&'static str],
    /// The test files.
    pub(super) test: &'static [&'static str],
    /// Records of a training file; a test file has 10,000.
    pub(super) train_records: usize,
    /// Label bytes of a record; the last of them is the label.
    pub(super) label_bytes: usize,
    /// The class names.
    pub(super) classes: &'static [&'static str],
    /// Small files of the archive that are not read.
    pub(super) extra: &'static [&'static str],
    /// What is looked for, for errors.
    pub(super) expected: &'static str,
}

/// Pixels and labels of one file.
pub(super) struct Records {
    /// `[N, 32, 32, 3]`.
    pub(super) pixels: Vec<u8>,
    /// `[N]`.
    pub(super) labels: Vec<u32>,
}

impl Layout {
    const TEST_RECORDS: usize = 10_000;

    fn record(&self) -> usize {
        self.label_bytes + IMAGE
    }

    /// Bytes of a training file and of a test file.
    pub(super) fn file_bytes(&self) -> (u64, u64) {
        let bytes = |records| (records * self.record()) as u64;
        (bytes(self.train_records), bytes(Self::TEST_RECORDS))
    }

    /// What the official archive holds.
    pub(super) fn expected_entries(&self) -> Vec<Expected> {
        let (train_bytes, test_bytes) = self.file_bytes();
        let entry = |name: &str| format!("{}/{name}", self.folder);
        let train = self
            .train
            .iter()
            .map(|name| Expected::exactly(entry(name), train_bytes));
        let test = self.test.iter().map(|name| Expected::exactly(entry(name), test_bytes));
        let extra = self.extra.iter().map(|name| Expected::at_most(entry(name), 4096));
        train.chain(test).chain(extra).collect()
    }

    /// Whether `path` is, or contains, the binary folder or the archive.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        if is_tar_gz(path) {
            // By the folder in it: its name may be any.
            return matches!(archive::first_folder(path), Ok(Some(folder)) if folder == self.folder);
        }
        self.binary_folder(path).is_some() || self.archive_file(path).is_some()
    }

    /// The folder with the files: `path` itself or the official one in it.
    fn binary_folder(&self, path: &Path) -> Option<PathBuf> {
        let has_file = |folder: &Path| {
            self.train
                .iter()
                .chain(self.test)
                .any(|name| folder.join(name).is_file())
        };
        [path.to_path_buf(), path.join(self.folder)]
            .into_iter()
            .find(|folder| has_file(folder))
    }

    /// The archive: `path` itself, by its name's ending, or the official one in it.
    fn archive_file(&self, path: &Path) -> Option<PathBuf> {
        if is_tar_gz(path) {
            return Some(path.to_path_buf());
        }
        Some(path.join(self.archive_name)).filter(|path| path.is_file())
    }

    /// Opens the binary folder, the folder that contains it, or the archive.
    pub(super) fn open(&self, path: &Path) -> Result<Splits<InMemory>> {
        let _span = tracing::info_span!("load", source = %path.display()).entered();
        if let Some(folder) = self.binary_folder(path) {
            return self.read_splits(&folder, |name, size| read_file(&folder.join(name), size));
        }
        if let Some(archive) = self.archive_file(path) {
            let mut entries = archive::read(&archive, &self.expected_entries())?;
            return self.read_splits(&archive, |name, _| {
                let entry = format!("{}/{name}", self.folder);
                entries.remove(&entry).ok_or(Error::ArchiveMissing {
                    path: archive.clone(),
                    entry,
                })
            });
        }
        Err(Error::UnknownLayout {
            path: path.to_path_buf(),
            expected: self.expected,
        })
    }

    /// Makes the splits of files that `file` reads by name and size.
    fn read_splits(
        &self,
        source: &Path,
        mut file: impl FnMut(&str, u64) -> Result<Vec<u8>>,
    ) -> Result<Splits<InMemory>> {
        let (train_bytes, test_bytes) = self.file_bytes();
        let mut split = |name: &str, files: &[&str], bytes: u64| -> Result<Arc<InMemory>> {
            let mut all = Records {
                pixels: Vec::with_capacity(files.len() * (bytes as usize)),
                labels: Vec::new(),
            };
            for name in files {
                let records = self.parse(&file(name, bytes)?, &source.join(name))?;
                all.pixels.extend_from_slice(&records.pixels);
                all.labels.extend(records.labels);
            }
            let classes = self.classes.iter().map(ToString::to_string).collect();
            let label = PathBuf::from(format!("{} {name} ({})", self.name, source.display()));
            Ok(Arc::new(InMemory::new(
                all.pixels, SIDE, SIDE, all.labels, classes, label,
            )?))
        };
        Ok(Splits {
            train: split("train", self.train, train_bytes)?,
            val: None,
            test: split("test", self.test, test_bytes)?,
        })
    }

    /// Reads records, as many as there are; `path` is for errors.
    pub(super) fn parse(&self, bytes: &[u8], path: &Path) -> Result<Records> {
        let record = self.record();
        let rest = bytes.len() % record;
        if rest != 0 {
            return Err(Error::Truncated {
                path: path.to_path_buf(),
                expected: (bytes.len() - rest + record) as u64,
                got: bytes.len() as u64,
            });
        }
        let labels = bytes.chunks_exact(record).map(|record| record[self.label_bytes - 1]);
        check_labels(path, labels.clone().map(u64::from), self.classes.len())?;
        let mut pixels = vec![0; bytes.len() / record * IMAGE];
        let pairs = bytes
            .par_chunks_exact(record)
            .zip(pixels.par_chunks_exact_mut(IMAGE))
            .with_min_len(256);
        pairs.for_each(|(record, out)| interleave(&record[self.label_bytes..], out));
        Ok(Records {
            pixels,
            labels: labels.map(u32::from).collect(),
        })
    }
}

/// Reads a file, after a look at its size.
fn read_file(path: &Path, expected: u64) -> Result<Vec<u8>> {
    check_size(
        path,
        std::fs::metadata(path).map_err(Error::io("read", path))?.len(),
        expected,
    )?;
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    check_size(path, bytes.len() as u64, expected)?;
    Ok(bytes)
}

fn check_size(path: &Path, got: u64, expected: u64) -> Result<()> {
    let path = path.to_path_buf();
    match got.cmp(&expected) {
        std::cmp::Ordering::Less => Err(Error::Truncated { path, expected, got }),
        std::cmp::Ordering::Greater => Err(Error::TrailingBytes { path, expected, got }),
        std::cmp::Ordering::Equal => Ok(()),
    }
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
