//! Samplers: the order in which an epoch visits a data set.

use kestrel_kernels::random::{KeyedRng, Purpose};

/// The order of samples in an epoch, as a function of the epoch.
pub trait Sampler: Send + Sync {
    /// Number of samples in an epoch; the same for every epoch.
    fn len(&self) -> usize;

    /// Whether an epoch has no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples' indices in the data set, in the order of epoch `epoch`; `len()` of them.
    fn order(&self, epoch: u64) -> Vec<usize>;
}

/// Visits the samples `0, 1, …, len - 1`.
///
/// # Source
/// `torch.utils.data.SequentialSampler`.
#[derive(Clone, Copy, Debug)]
pub struct SequentialSampler {
    /// Number of samples.
    pub len: usize,
}

impl Sampler for SequentialSampler {
    fn len(&self) -> usize {
        self.len
    }

    fn order(&self, _epoch: u64) -> Vec<usize> {
        (0..self.len).collect()
    }
}

/// Visits every sample once, in a fresh order each epoch that is a function of (seed, epoch).
///
/// # Source
/// `torch.utils.data.RandomSampler` without replacement; the orders themselves are this crate's.
#[derive(Clone, Copy, Debug)]
pub struct RandomSampler {
    /// Number of samples.
    pub len: usize,
    /// The run's seed.
    pub seed: u64,
}

impl Sampler for RandomSampler {
    fn len(&self) -> usize {
        self.len
    }

    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len).collect();
        KeyedRng::new(self.seed, Purpose::Shuffle, epoch, 0).shuffle(&mut order);
        order
    }
}
