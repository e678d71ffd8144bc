//! Data sets: the [`Dataset`] trait and one module a source.
//!
//! [`open`] takes whatever a user's `--data PATH` names: CIFAR-10's binary folder or archive, a folder of IDX files (MNIST,
//! Fashion-MNIST), or image folders `train/<class>/*` and `test/<class>/*`.

#[cfg(feature = "candle-datasets")]
pub mod candle;
pub mod cifar10;
pub mod idx;
mod image_folder;
mod in_memory;
pub mod sample;
mod subset;

use std::path::Path;
use std::sync::Arc;

use crate::decode::Choose;
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::pixels::Image;

pub use image_folder::{ImageFolder, Skipped};
pub use in_memory::InMemory;
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

    /// Says that a sample will be asked for soon; a data set whose pixels lie in memory fetches them into the cache. Nothing
    /// by default.
    fn prefetch(&self, _index: usize) {}

    /// Where the samples come from, for people: `CIFAR-10 train (data/cifar-10-batches-bin)`.
    fn describe(&self) -> String;

    /// Where one sample comes from, for people: its file, or its place in the data set.
    fn describe_sample(&self, index: usize) -> String {
        format!("sample {index} of {}", self.describe())
    }

    /// The identity of the samples: sha256 over class names, labels, and pixels or files.
    ///
    /// # Errors
    /// Those of reading, where the identity needs it.
    fn fingerprint(&self) -> Result<Fingerprint>;
}

/// A training split and a test split with the same classes.
#[derive(Debug)]
pub struct Splits<D: ?Sized = dyn Dataset> {
    /// To train on.
    pub train: Arc<D>,
    /// To evaluate on.
    pub test: Arc<D>,
}

impl<D: ?Sized> Clone for Splits<D> {
    fn clone(&self) -> Self {
        Self {
            train: Arc::clone(&self.train),
            test: Arc::clone(&self.test),
        }
    }
}

impl<D: Dataset + 'static> Splits<D> {
    /// The same splits, whatever they are made of.
    pub fn into_dyn(self) -> Splits {
        Splits {
            train: self.train,
            test: self.test,
        }
    }
}

impl Splits<InMemory> {
    /// The same samples with other class names.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`] if there are too few names.
    pub fn with_classes(self, classes: &[String]) -> Result<Self> {
        let rename = |split: Arc<InMemory>| Arc::unwrap_or_clone(split).with_classes(classes.to_vec()).map(Arc::new);
        Ok(Self {
            train: rename(self.train)?,
            test: rename(self.test)?,
        })
    }

    /// Decodes two image folders into memory.
    ///
    /// # Errors
    /// Those of [`InMemory::decode`].
    pub fn decode(folders: &Splits<ImageFolder>) -> Result<Self> {
        let train = InMemory::decode(&folders.train)?;
        let test = InMemory::decode(&folders.test)?;
        Ok(Self {
            train: Arc::new(train),
            test: Arc::new(test),
        })
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

/// Opens what `path` names, into memory.
///
/// In this order: CIFAR-10 ([`cifar10::open`]: binary folder or archive), a folder of IDX files ([`idx::open`]), image
/// folders ([`ImageFolder::open_splits`], all images of one size; CIFAR-10's class names become the short ones of
/// [`cifar10::CLASSES`]).
///
/// # Errors
/// [`Error::UnknownLayout`] if it is none of them, else those of the reader that fits.
pub fn open(path: &Path) -> Result<Splits<InMemory>> {
    if cifar10::is_binary(path) {
        cifar10::open(path)
    } else if idx::is_idx_folder(path) {
        idx::open(path)
    } else if ImageFolder::is_splits(path) {
        let splits = Splits::decode(&ImageFolder::open_splits(path)?)?;
        match cifar10::short_names(splits.train.classes()) {
            Some(names) => splits.with_classes(&names),
            None => Ok(splits),
        }
    } else {
        Err(Error::UnknownLayout {
            path: path.to_path_buf(),
            expected: "cifar-10-batches-bin or cifar-10-binary.tar.gz, IDX files such as train-images-idx3-ubyte.gz, or \
                       folders train/<class> and test/<class> of images",
        })
    }
}
