//! `Subset`: some samples of a data set, in a given order.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::Dataset;
use crate::decode::Choose;
use crate::error::{Error, Result};
use crate::fingerprint::{Fingerprint, FingerprintHasher};
use crate::pixels::Image;

/// The samples of another data set at given indices.
///
/// # Source
/// `torch.utils.data.Subset`.
#[derive(Clone)]
pub struct Subset {
    dataset: Arc<dyn Dataset>,
    indices: Vec<usize>,
}

impl fmt::Debug for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subset({})", self.describe())
    }
}

impl Subset {
    /// The samples of `dataset` at `indices`, in that order.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for an index past the end, [`Error::EmptySplit`] without indices.
    pub fn new(dataset: Arc<dyn Dataset>, indices: Vec<usize>) -> Result<Self> {
        if indices.is_empty() {
            return Err(Error::EmptySplit {
                path: PathBuf::from(format!("a subset of {}", dataset.describe())),
            });
        }
        match indices.iter().find(|&&index| index >= dataset.len()) {
            Some(index) => Err(Error::InvalidParameter {
                name: "subset index",
                expected: "an index below the data set's length",
                got: format!("{index} of {}", dataset.len()),
            }),
            None => Ok(Self { dataset, indices }),
        }
    }

    /// The samples' indices in the whole data set.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }
}

impl Dataset for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn classes(&self) -> &[String] {
        self.dataset.classes()
    }

    fn label(&self, index: usize) -> u32 {
        self.dataset.label(self.indices[index])
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        self.dataset.image(self.indices[index])
    }

    fn image_part(&self, index: usize, choose: Choose<'_>) -> Result<Image<'_>> {
        self.dataset.image_part(self.indices[index], choose)
    }

    fn size_in_memory(&self) -> Option<(usize, usize)> {
        self.dataset.size_in_memory()
    }

    fn prefetch(&self, index: usize) {
        if let Some(&index) = self.indices.get(index) {
            self.dataset.prefetch(index);
        }
    }

    fn describe(&self) -> String {
        format!(
            "{} of the {} samples of {}",
            self.len(),
            self.dataset.len(),
            self.dataset.describe()
        )
    }

    fn describe_sample(&self, index: usize) -> String {
        self.dataset.describe_sample(self.indices[index])
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        let labels = (0..self.len()).map(|index| self.label(index));
        let mut hasher = FingerprintHasher::new("subset", self.classes(), labels);
        hasher.field(self.dataset.fingerprint()?.bytes());
        for &index in &self.indices {
            hasher.number(index as u64);
        }
        Ok(hasher.finish())
    }

    fn content(&self, index: usize) -> Result<Option<Fingerprint>> {
        self.dataset.content(self.indices[index])
    }
}
