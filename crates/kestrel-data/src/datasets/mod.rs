//! Data sets: the [`Dataset`] trait and one module a source.
//!
//! [`open`] takes whatever a user's `--data PATH` names: the binary folder or archive of CIFAR-10 or CIFAR-100, a folder of IDX
//! files (MNIST, Fashion-MNIST), image folders `{train,val,test}/<class>/**` or `<class>/**`, such folders in a plain `.tar`, or a
//! table of images (`.csv`).

#[cfg(feature = "candle-datasets")]
pub mod candle;
pub mod cifar10;
pub mod cifar100;
mod cifar_binary;
mod contents;
pub mod idx;
mod image_csv;
mod image_files;
mod image_folder;
mod image_list;
mod image_tar;
mod image_walk;
mod in_memory;
mod opened;
pub mod sample;
mod skipped;
mod split_names;
mod subset;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::archive;
use crate::bad_samples::BadSamplePolicy;
use crate::decode::Choose;
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::pixels::Image;

pub use contents::fingerprint_with_contents;
pub use image_csv::ImageCsv;
pub use image_files::ImageFiles;
pub use image_folder::ImageFolder;
pub use image_list::ImageList;
pub use image_tar::ImageTar;
pub use image_walk::images_below;
pub use in_memory::InMemory;
pub use opened::{Opened, Splits};
pub use skipped::{SkipReason, Skipped, describe_skipped};
pub use subset::Subset;

/// Labelled images, read by index from any thread.
///
/// Labels are below `classes().len()`: an implementation checks that when it is opened, by [`check_labels`].
pub trait Dataset: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The class names; a label is an index into them.
    fn classes(&self) -> &[String];

    /// The label of a sample.
    ///
    /// # Panics
    /// May panic if `index >= len()`.
    fn label(&self, index: usize) -> u32;

    /// The pixels of a sample: 8-bit RGB, `[H, W, 3]`, borrowed where they lie in memory.
    ///
    /// # Errors
    /// Those of reading and decoding, where the pixels are not in memory.
    ///
    /// # Panics
    /// May panic if `index >= len()`.
    fn image(&self, index: usize) -> Result<Image<'_>>;

    /// The pixels of a sample where only the part that `choose` picks, told the height and the width, will be looked at.
    ///
    /// The image has its whole size; outside of the part it may be black. By default, all of [`Self::image`].
    ///
    /// # Errors
    /// Those of [`Self::image`].
    ///
    /// # Panics
    /// May panic if `index >= len()`.
    fn image_part(&self, index: usize, _choose: Choose<'_>) -> Result<Image<'_>> {
        self.image(index)
    }

    /// Height and width of the images where all have one size and lie in memory, so that they may be copied to a device. None
    /// by default.
    fn size_in_memory(&self) -> Option<(usize, usize)> {
        None
    }

    /// Says that a sample will be asked for soon; a data set whose pixels lie in memory fetches them into the cache. Nothing
    /// by default.
    fn prefetch(&self, _index: usize) {}

    /// How many damaged samples were left out when the data set was opened, and have no index. None by default; none of a part
    /// of a data set, of which nobody knows whether they would be in it.
    fn left_out(&self) -> usize {
        0
    }

    /// Where the samples come from, for people: `CIFAR-10 train (data/cifar-10-batches-bin)`.
    fn describe(&self) -> String;

    /// Where one sample comes from, for people: its file, or its place in the data set.
    fn describe_sample(&self, index: usize) -> String {
        format!("sample {index} of {}", self.describe())
    }

    /// The identity of the samples: sha256 over class names, labels, and pixels, or the files' names and sizes.
    ///
    /// Files are not read for it. What they hold is told by [`fingerprint_with_contents`].
    ///
    /// # Errors
    /// Those of reading, where the identity needs it.
    fn fingerprint(&self) -> Result<Fingerprint>;

    /// The sha256 of a sample's file, where [`Self::fingerprint`] knows it by name and size alone. None by default: the
    /// fingerprint covers the pixels.
    ///
    /// # Errors
    /// Those of reading.
    ///
    /// # Panics
    /// May panic if `index >= len()`.
    fn content(&self, _index: usize) -> Result<Option<Fingerprint>> {
        Ok(None)
    }
}

/// Checks that every label is below the class count.
///
/// # Errors
/// [`Error::LabelOutOfRange`] for the first that is not, with `path` as its source.
pub fn check_labels(path: &Path, labels: impl IntoIterator<Item = u64>, num_classes: usize) -> Result<()> {
    for (index, label) in labels.into_iter().enumerate() {
        if label >= num_classes as u64 {
            return Err(Error::LabelOutOfRange {
                path: path.to_path_buf(),
                index,
                label,
                num_classes,
            });
        }
    }
    Ok(())
}

/// What can be opened, for [`Error::UnknownLayout`].
pub(crate) const LAYOUTS: &str = "cifar-10-batches-bin, cifar-100-binary or their .tar.gz, IDX files such as \
                                  train-images-idx3-ubyte.gz, folders train/<class> and test/<class> of images, or <class> \
                                  alone, such folders in a .tar, or a .csv with the columns path and label";

/// Opens what `path` names, into memory; a damaged image is an error.
///
/// # Errors
/// Those of [`open_any`], and [`Error::NoSplits`] for a data set that is one whole.
pub fn open(path: &Path) -> Result<Splits<InMemory>> {
    open_any(path, BadSamplePolicy::default())?.splits(path)
}

/// Opens what `path` names, into memory.
///
/// In this order: CIFAR-100 and CIFAR-10 ([`cifar10::open`]: binary folder or archive), a folder of IDX files
/// ([`idx::open`]), and what [`open_files`] opens, all images of one size; CIFAR-10's class names become the short ones of
/// [`cifar10::CLASSES`]. `bad_samples` says what happens to damaged images.
///
/// # Errors
/// [`Error::Io`] if nothing is there, [`Error::UnknownLayout`] if it is none of them, else those of the reader that fits and of [`InMemory::decode`].
pub fn open_any(path: &Path, bad_samples: BadSamplePolicy) -> Result<Opened<InMemory>> {
    if let Some(splits) = open_binary(path)? {
        return Ok(Opened::Splits(splits));
    }
    let files = open_files(path)?.ok_or_else(|| Error::UnknownLayout {
        path: path.to_path_buf(),
        expected: LAYOUTS,
    })?;
    let decoded = files.map(|split| InMemory::decode(split.as_ref(), bad_samples).map(Arc::new))?;
    decoded.map(|split| match cifar10::short_names(split.classes()) {
        Some(names) => Arc::unwrap_or_clone(split).with_classes(names).map(Arc::new),
        None => Ok(split),
    })
}

/// Opens what `path` names if its pixels lie there as they are: CIFAR-10, CIFAR-100, IDX files.
///
/// # Errors
/// [`Error::Io`] if nothing is there, [`Error::CompressedArchive`] for a `.tar.gz` of anything else, and those of the reader that fits.
pub fn open_binary(path: &Path) -> Result<Option<Splits<InMemory>>> {
    match binary_reader(path)? {
        Some(open) => open(path).map(Some),
        None => Ok(None),
    }
}

/// Reads a data set into memory.
type Reader = fn(&Path) -> Result<Splits<InMemory>>;

/// The reader for what `path` names, if its pixels lie there as they are.
fn binary_reader(path: &Path) -> Result<Option<Reader>> {
    // A path that is not there is not taken for a layout that is not known.
    fs::metadata(path).map_err(Error::io("read", path))?;
    if cifar100::is_binary(path) {
        Ok(Some(cifar100::open))
    } else if cifar10::is_binary(path) {
        Ok(Some(cifar10::open))
    } else if idx::is_idx_folder(path) {
        Ok(Some(idx::open))
    } else if is_tar_gz(path) {
        // Pictures are read by position, which compression takes away.
        let path = path.to_path_buf();
        Err(match archive::first_folder(&path)? {
            Some(found) => Error::CompressedArchive { path, found },
            None => Error::EmptySplit { path },
        })
    } else {
        Ok(None)
    }
}

/// Opens what `path` names with its images left in their files, to be decoded whenever one is asked for: their sizes may
/// differ, and they need not fit in memory.
///
/// None if `path` names no image files, or those of CIFAR-10, by its classes and by the size of the first image of each: so
/// many small ones are better kept in memory, and [`open_any`] opens them.
///
/// # Errors
/// Those of [`open_files`], and [`Error::CompressedArchive`].
pub fn open_undecoded(path: &Path) -> Result<Option<Opened>> {
    if binary_reader(path)?.is_some() {
        return Ok(None);
    }
    let Some(files) = open_files(path)? else {
        return Ok(None);
    };
    let opened = files.map(|split| Ok(split as Arc<dyn Dataset>))?;
    let train = match &opened {
        Opened::Splits(splits) => &splits.train,
        Opened::Whole(all) => all,
    };
    Ok((!is_cifar10(train.as_ref())).then_some(opened))
}

/// Whether these are the images of CIFAR-10, and not others of the same classes. A damaged one tells nothing.
fn is_cifar10(dataset: &dyn Dataset) -> bool {
    let small = |image: Image<'_>| (image.height(), image.width()) == (cifar_binary::SIDE, cifar_binary::SIDE);
    let mut seen = BTreeSet::new();
    cifar10::short_names(dataset.classes()).is_some()
        && (0..dataset.len())
            .filter(|&index| seen.insert(dataset.label(index)))
            .all(|index| dataset.image(index).map_or(true, small))
}

/// Opens what `path` names if it consists of image files, without decoding any: image folders
/// ([`ImageFolder::open_any`]), such folders in a `.tar` ([`ImageTar::open`]), or a table ([`ImageCsv::open`]).
///
/// # Errors
/// Those of the reader that fits.
pub fn open_files(path: &Path) -> Result<Option<Opened<dyn ImageFiles>>> {
    if is_table(path) {
        ImageCsv::open(path)?
            .map(|split| Ok(split as Arc<dyn ImageFiles>))
            .map(Some)
    } else if is_tar(path) {
        ImageTar::open(path)?
            .map(|split| Ok(split as Arc<dyn ImageFiles>))
            .map(Some)
    } else if ImageFolder::is_splits(path) || image_walk::has_images_in_folders(path) {
        let opened = ImageFolder::open_any(path)?;
        opened.map(|split| Ok(split as Arc<dyn ImageFiles>)).map(Some)
    } else {
        Ok(None)
    }
}

fn is_table(path: &Path) -> bool {
    is_file_ending_in(path, &[".csv"])
}

fn is_tar(path: &Path) -> bool {
    is_file_ending_in(path, &[".tar"])
}

/// Whether `path` is a compressed archive, by its name.
fn is_tar_gz(path: &Path) -> bool {
    is_file_ending_in(path, &[".tar.gz", ".tgz"])
}

/// Whether `path` is a file with one of these endings, which are in lower case.
fn is_file_ending_in(path: &Path, endings: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    endings.iter().any(|ending| name.ends_with(ending)) && path.is_file()
}
