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
        self.draws(step).rng()
    }

    /// What a transform may draw here, as [`Compose`](super::Compose) gives it to the first of that name in its stage: to try a
    /// transform of one's own without a pipeline.
    pub fn draws_of(self, name: &str) -> Draws {
        self.draws(StepKey::new(name, 0))
    }

    /// What a step of the pipeline may draw.
    pub(super) fn draws(self, step: StepKey) -> Draws {
        Draws { key: self, step }
    }
}

/// What a transform may draw at a place in a run.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    key: SampleKey,
    step: StepKey,
}

impl Draws {
    /// The epoch, from 0.
    pub fn epoch(self) -> u64 {
        self.key.epoch
    }

    /// The generator of this epoch.
    pub fn rng(self) -> KeyedRng {
        self.rng_of_epoch(self.key.epoch)
    }

    /// The generator that the transform has for the same sample in another epoch.
    pub fn rng_of_epoch(self, epoch: u64) -> KeyedRng {
        KeyedRng::new(self.key.seed, Purpose::Transform, epoch, self.key.index).stream(self.step.0)
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
