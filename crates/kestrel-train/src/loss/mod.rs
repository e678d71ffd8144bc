//! Losses, one a file.

mod cross_entropy;
mod focal;

pub use cross_entropy::CrossEntropyLoss;
pub use focal::FocalLoss;

use candle_core::{Device, Tensor};
use kestrel_data::loader::Batch;

use crate::metrics::argmax;
use crate::{Error, Result};

/// What logits `[N, C]` are compared with.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// `[N]` of `u32`: each image's class.
    Classes(&'a Tensor),
    /// `[N, C]` of the logits' type: each image's probabilities, as MixUp and CutMix make them.
    Soft(&'a Tensor),
}

impl<'a> Targets<'a> {
    /// A batch's targets: the probabilities where its images were mixed, else the classes.
    pub fn of(batch: &'a Batch) -> Self {
        match &batch.soft_targets {
            Some(soft) => Self::Soft(soft),
            None => Self::Classes(&batch.targets),
        }
    }

    /// Each image's class; of probabilities the likeliest, as torchvision's reference trainer counts accuracy.
    ///
    /// # Errors
    /// Where a device fails.
    pub fn classes(self) -> Result<Vec<u32>> {
        match self {
            Self::Classes(classes) => Ok(classes.to_device(&Device::Cpu)?.to_vec1::<u32>()?),
            Self::Soft(soft) => argmax(soft),
        }
    }

    /// The tensor.
    pub fn tensor(self) -> &'a Tensor {
        match self {
            Self::Classes(tensor) | Self::Soft(tensor) => tensor,
        }
    }
}

/// A mean over a batch that training makes small.
pub trait Loss: Send + Sync {
    /// The mean loss, a scalar with candle's graph.
    ///
    /// # Errors
    /// Where shapes do not agree or a target is out of range.
    fn forward(&self, logits: &Tensor, targets: Targets<'_>) -> Result<Tensor>;

    /// What the sum over the batch is divided by. Means of parts of a batch, weighted by it, make the mean of the whole.
    ///
    /// # Errors
    /// As [`Loss::forward`].
    fn divisor(&self, targets: Targets<'_>) -> Result<f64> {
        Ok(targets.tensor().dim(0)? as f64)
    }

    /// Whether a training pass with this loss may be recorded once on a GPU and replayed for later steps; the promise is that of
    /// [`Model::can_be_recorded`](kestrel_models::Model::can_be_recorded), of [`forward`](Self::forward) and what is recorded in
    /// it for the backward. Not, where a loss does not say.
    fn can_be_recorded(&self) -> bool {
        false
    }
}

/// Class weights, one a class.
#[derive(Clone, Debug, PartialEq)]
struct ClassWeights(Vec<f64>);

impl ClassWeights {
    fn new(weights: Vec<f64>) -> Result<Self> {
        let valid = weights.iter().all(|w| *w >= 0.0 && w.is_finite());
        if !valid || weights.iter().all(|w| *w == 0.0) {
            return Err(Error::InvalidConfig {
                field: "class_weights",
                expected: "finite numbers, 0 or more, not all 0",
                got: format!("{weights:?}"),
            });
        }
        Ok(Self(weights))
    }

    /// Errors unless there is one for each column of the logits.
    fn check(&self, logits: &Tensor) -> Result<()> {
        let classes = logits.dim(candle_core::D::Minus1)?;
        if self.0.len() == classes {
            return Ok(());
        }
        Err(Error::InvalidConfig {
            field: "class_weights",
            expected: "one for each class",
            got: format!("{} for {classes} classes", self.0.len()),
        })
    }

    /// The sum of the weights of `[N]` classes.
    fn sum_over(&self, classes: &Tensor) -> Result<f64> {
        let classes = classes.to_device(&Device::Cpu)?.to_vec1::<u32>()?;
        // A class that is out of range is the forward's error.
        Ok(classes.iter().filter_map(|class| self.0.get(*class as usize)).sum())
    }
}
