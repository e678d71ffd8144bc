//! IDX files, plain or gzipped: MNIST's format.
//!
//! A file is a magic number `0x00000800 + dimensions` (unsigned bytes), each dimension as 32 bits, big-endian, then the
//! bytes. Grey images become RGB, and images of 28x28 get two black pixels on each side, so that they are 32x32.

#[cfg(feature = "download")]
mod cache;

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{InMemory, Splits, sample};
use crate::error::{Error, Result};
use crate::pixels::CHANNELS;

/// The most bytes that a file's dimensions may announce: well above EMNIST's 638 MB.
pub const MAX_BYTES: u64 = 2 << 30;

const IMAGES_MAGIC: u32 = 0x0803;
const LABELS_MAGIC: u32 = 0x0801;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// An array of unsigned bytes: labels `[N]` or grey images `[N, H, W]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// The dimensions, outermost first.
    pub dims: Vec<usize>,
    /// The bytes, row by row.
    pub data: Vec<u8>,
}

/// Reads an IDX file of one or three dimensions, gzipped or not; `path` is for errors.
///
/// # Errors
/// [`Error::BadMagic`], [`Error::Truncated`], [`Error::TrailingBytes`], [`Error::TooLarge`] (before anything is allocated),
/// [`Error::Io`] (also for damaged gzip data).
pub fn read(mut reader: impl Read, path: &Path) -> Result<Idx> {
    let mut start = Vec::new();
    reader
        .by_ref()
        .take(GZIP_MAGIC.len() as u64)
        .read_to_end(&mut start)
        .map_err(Error::io("read", path))?;
    let gzipped = start == GZIP_MAGIC;
    let whole = Cursor::new(start).chain(reader);
    if gzipped {
        parse(flate2::read::MultiGzDecoder::new(whole), path)
    } else {
        parse(whole, path)
    }
}

/// Reads the IDX file at `path`.
///
/// # Errors
/// Those of [`read`].
pub fn read_file(path: &Path) -> Result<Idx> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    read(std::io::BufReader::new(file), path)
}

fn parse(mut reader: impl Read, path: &Path) -> Result<Idx> {
    // A damaged gzip stream that just ends reads as a truncated file.
    let mut read_up_to = |count: u64, already: u64, needed: u64| -> Result<Vec<u8>> {
        let mut data = Vec::new();
        let result = reader.by_ref().take(count).read_to_end(&mut data);
        let got = already + data.len() as u64;
        let ended = result
            .as_ref()
            .err()
            .is_none_or(|e| e.kind() == std::io::ErrorKind::UnexpectedEof);
        if ended && got < needed {
            return Err(Error::Truncated {
                path: path.to_path_buf(),
                expected: needed,
                got,
            });
        }
        result.map_err(Error::io("read", path))?;
        Ok(data)
    };
    let word = |bytes: &[u8]| bytes.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte));
    let magic = word(&read_up_to(4, 0, 4)?);
    let rank = match magic {
        IMAGES_MAGIC => 3,
        LABELS_MAGIC => 1,
        got => {
            return Err(Error::BadMagic {
                path: path.to_path_buf(),
                expected: IMAGES_MAGIC,
                got,
            });
        }
    };
    let header = 4 + 4 * rank;
    let dims = read_up_to(4 * rank, 4, header)?;
    let dims: Vec<u64> = dims.chunks_exact(4).map(|bytes| u64::from(word(bytes))).collect();
    let body = dims
        .iter()
        .try_fold(1u64, |product, &dim| product.checked_mul(dim))
        .unwrap_or(u64::MAX);
    if body > MAX_BYTES {
        let what = "the number of bytes that its header announces";
        return Err(Error::TooLarge {
            path: path.to_path_buf(),
            what,
            limit: MAX_BYTES,
            got: body,
        });
    }
    let expected = header + body;
    let mut data = read_up_to(body + 1, header, expected)?;
    if data.len() as u64 > body {
        return Err(Error::TrailingBytes {
            path: path.to_path_buf(),
            expected,
            got: expected + 1,
        });
    }
    data.shrink_to_fit();
    Ok(Idx {
        dims: dims.into_iter().map(|dim| dim as usize).collect(),
        data,
    })
}

/// Makes grey images and their labels a data set of RGB images; 28x28 becomes 32x32.
///
/// # Errors
/// [`Error::BadMagic`] if `images` are labels or `labels` are images, [`Error::CountMismatch`], and those of
/// [`InMemory::new`].
pub fn into_dataset(images: &Idx, labels: &Idx, classes: Vec<String>, source: &Path) -> Result<InMemory> {
    let wrong = |expected, got| Error::BadMagic {
        path: source.to_path_buf(),
        expected,
        got,
    };
    let &[count, height, width] = images.dims.as_slice() else {
        return Err(wrong(IMAGES_MAGIC, LABELS_MAGIC));
    };
    let &[label_count] = labels.dims.as_slice() else {
        return Err(wrong(LABELS_MAGIC, IMAGES_MAGIC));
    };
    if count != label_count {
        return Err(Error::CountMismatch {
            path: source.to_path_buf(),
            expected: count,
            got: label_count,
        });
    }
    let padding = if (height, width) == (28, 28) { 2 } else { 0 };
    let pixels = grey_to_rgb(&images.data, height, width, padding);
    let labels = labels.data.iter().copied().map(u32::from).collect();
    InMemory::new(
        pixels,
        height + 2 * padding,
        width + 2 * padding,
        labels,
        classes,
        source,
    )
}

/// From grey `[N, height, width]` to RGB `[N, height + 2 padding, width + 2 padding, 3]`, black around it.
pub(crate) fn grey_to_rgb(grey: &[u8], height: usize, width: usize, padding: usize) -> Vec<u8> {
    // Of no images the size is anything that a header says, and need not fit.
    if grey.is_empty() || height == 0 || width == 0 {
        return Vec::new();
    }
    let row = (width + 2 * padding) * CHANNELS;
    let image = (height + 2 * padding) * row;
    let mut out = vec![0; grey.len() / (height * width) * image];
    for (from, to) in grey.chunks_exact(height * width).zip(out.chunks_exact_mut(image)) {
        for (from, to) in from.chunks_exact(width).zip(to.chunks_exact_mut(row).skip(padding)) {
            for (&value, pixel) in from.iter().zip(to.chunks_exact_mut(CHANNELS).skip(padding)) {
                pixel.fill(value);
            }
        }
    }
    out
}

/// Whether `folder` holds MNIST's four files.
pub(crate) fn is_idx_folder(folder: &Path) -> bool {
    find(folder, "train-images", "idx3").is_some()
}

/// Opens a folder with MNIST's four files: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-…` and
/// `t10k-labels-…`, each gzipped (`.gz`) or not.
///
/// The classes are `0` to `9`; or Fashion-MNIST's if the folder's name contains `fashion`.
///
/// # Errors
/// [`Error::Io`] for a missing file, and those of [`read`] and [`into_dataset`].
pub fn open(folder: &Path) -> Result<Splits<InMemory>> {
    let _span = tracing::info_span!("load", source = %folder.display()).entered();
    let fashion = folder
        .file_name()
        .is_some_and(|name| name.to_string_lossy().to_lowercase().contains("fashion"));
    let classes = if fashion { sample::CLASSES } else { DIGITS };
    let classes = classes.map(String::from).to_vec();
    let file = |part: &str, kind: &str| {
        find(folder, part, kind).unwrap_or_else(|| folder.join(format!("{part}-{kind}-ubyte")))
    };
    let split = |part: &str| -> Result<Arc<InMemory>> {
        let images_path = file(&format!("{part}-images"), "idx3");
        let images = read_file(&images_path)?;
        let labels = read_file(&file(&format!("{part}-labels"), "idx1"))?;
        Ok(Arc::new(into_dataset(&images, &labels, classes.clone(), &images_path)?))
    };
    Ok(Splits {
        train: split("train")?,
        val: None,
        test: split("t10k")?,
    })
}

fn find(folder: &Path, part: &str, kind: &str) -> Option<PathBuf> {
    let names = [format!("{part}-{kind}-ubyte"), format!("{part}.{kind}-ubyte")];
    names
        .iter()
        .flat_map(|name| [folder.join(name), folder.join(format!("{name}.gz"))])
        .find(|path| path.is_file())
}

#[cfg(feature = "download")]
pub use cache::{FASHION_MNIST, MNIST, Remote, open_or_download};

/// MNIST's class names.
pub const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

#[cfg(test)]
mod tests;
