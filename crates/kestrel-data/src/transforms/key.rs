//! What a random transform's draws depend on: the run's seed, the epoch, the sample, and which transform it is.

use kestrel_kernels::random::{KeyedRng, Purpose, name_key};

/// The place in a run at which a pipeline is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleKey {
    /// The run's seed.
    pub seed: u64,
    /// The epoch.
    pub epoch: u64,
    /// The sample's index in the data set; for transforms of whole batches, the batch's number in the epoch.
    pub index: u64,
}

impl SampleKey {
    /// The generator of a step of the pipeline.
    pub(super) fn rng(self, step: StepKey) -> KeyedRng {
        KeyedRng::new(self.seed, Purpose::Transform, self.epoch, self.index).stream(step.0)
    }
}

/// Which step of a pipeline: a transform's name, and how many of that name come before it. So a step that is added or
/// removed leaves the draws of all other transforms as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StepKey(u64);

impl StepKey {
    pub(super) fn new(name: &str, earlier: usize) -> Self {
        Self(name_key(name).wrapping_add(earlier as u64))
    }
}
