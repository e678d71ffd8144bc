//! Where the training loop's batches come from: a loader of images, or features that were computed before.

use std::time::Duration;

use kestrel_data::loader::{Batch, DataLoader, Epoch};

use crate::Result;

/// Batches to train or evaluate on, epoch after epoch.
pub trait BatchSource {
    /// Batches of an epoch.
    fn num_batches(&self) -> usize;

    /// Samples of an epoch.
    fn num_samples(&self) -> usize;

    /// The batches of an epoch, counted from 0.
    ///
    /// # Errors
    /// Where they cannot be begun.
    fn epoch(&self, epoch: u64) -> Result<Box<dyn Batches + '_>>;
}

/// The batches of an epoch, in order.
pub trait Batches: Iterator<Item = Result<Batch>> {
    /// How long the consumer has waited for batches so far.
    fn wait(&self) -> Duration;
}

impl BatchSource for DataLoader {
    fn num_batches(&self) -> usize {
        DataLoader::num_batches(self)
    }

    fn num_samples(&self) -> usize {
        DataLoader::num_samples(self)
    }

    fn epoch(&self, epoch: u64) -> Result<Box<dyn Batches + '_>> {
        Ok(Box::new(Loaded(DataLoader::epoch(self, epoch))))
    }
}

/// An epoch of a loader, with this crate's errors.
struct Loaded(Epoch);

impl Iterator for Loaded {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.next()?.map_err(Into::into))
    }
}

impl Batches for Loaded {
    fn wait(&self) -> Duration {
        self.0.wait()
    }
}
