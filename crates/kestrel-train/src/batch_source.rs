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

    /// The damaged samples that were skipped so far, in all epochs: they are part of a run's state. None, where a source does not
    /// say.
    fn bad_samples(&self) -> Vec<usize> {
        Vec::new()
    }

    /// Counts samples as skipped before: those of the run that goes on.
    fn add_bad_samples(&self, _samples: &[usize]) {}

    /// The batches of an epoch, both counted from 0, from batch `first_batch` on, without making those before; none if it is
    /// past the end.
    ///
    /// # Errors
    /// Where they cannot be begun.
    fn epoch_from(&self, epoch: u64, first_batch: usize) -> Result<Box<dyn Batches + '_>>;

    /// All batches of an epoch.
    ///
    /// # Errors
    /// Where they cannot be begun.
    fn epoch(&self, epoch: u64) -> Result<Box<dyn Batches + '_>> {
        self.epoch_from(epoch, 0)
    }
}

/// The batches of an epoch, in order.
pub trait Batches: Iterator<Item = Result<Batch>> {
    /// How long the consumer has waited for batches so far.
    fn wait(&self) -> Duration;

    /// The number in the epoch of the batch that comes next, from 0: where [`BatchSource::epoch_from`] goes on.
    fn next_batch(&self) -> usize;
}

impl BatchSource for DataLoader {
    fn num_batches(&self) -> usize {
        DataLoader::num_batches(self)
    }

    fn num_samples(&self) -> usize {
        DataLoader::num_samples(self)
    }

    fn bad_samples(&self) -> Vec<usize> {
        DataLoader::bad_samples(self)
    }

    fn add_bad_samples(&self, samples: &[usize]) {
        DataLoader::add_bad_samples(self, samples);
    }

    fn epoch_from(&self, epoch: u64, first_batch: usize) -> Result<Box<dyn Batches + '_>> {
        Ok(Box::new(Loaded(DataLoader::epoch_from(self, epoch, first_batch))))
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

    fn next_batch(&self) -> usize {
        self.0.next_batch()
    }
}
