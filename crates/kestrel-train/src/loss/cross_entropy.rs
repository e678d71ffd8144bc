//! Cross-entropy with label smoothing and class weights.

use candle_core::Tensor;
use kestrel_kernels::{CrossEntropyConfig, cross_entropy_with};

use super::{ClassWeights, Loss, Targets};
use crate::Result;
use crate::optim::{Range, check};

/// Cross-entropy of logits; see [`kestrel_kernels::cross_entropy_with`] for the equations.
///
/// # Source
/// `torch.nn.CrossEntropyLoss(weight=..., label_smoothing=...)`; proved by `kestrel-kernels`' golden file
/// `cross_entropy`.
#[derive(Clone, Debug, Default)]
pub struct CrossEntropyLoss {
    label_smoothing: f64,
    class_weights: Option<ClassWeights>,
}

impl CrossEntropyLoss {
    /// `label_smoothing` in `[0, 1]` is the share of each target that is spread over all classes; `class_weights` has a
    /// factor for each class.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`] for values outside of their ranges.
    pub fn new(label_smoothing: f64, class_weights: Option<Vec<f64>>) -> Result<Self> {
        check(&[("label_smoothing", label_smoothing, Range::Unit)])?;
        Ok(Self {
            label_smoothing,
            class_weights: class_weights.map(ClassWeights::new).transpose()?,
        })
    }
}

impl Loss for CrossEntropyLoss {
    fn forward(&self, logits: &Tensor, targets: Targets<'_>) -> Result<Tensor> {
        let class_weights = match &self.class_weights {
            None => None,
            Some(weights) => {
                weights.check(logits)?;
                let weights = Tensor::new(weights.0.as_slice(), logits.device())?;
                Some(weights.to_dtype(logits.dtype())?)
            }
        };
        let config = CrossEntropyConfig {
            label_smoothing: self.label_smoothing,
            class_weights,
        };
        Ok(cross_entropy_with(logits, targets.tensor(), &config)?)
    }

    fn divisor(&self, targets: Targets<'_>) -> Result<f64> {
        match (targets, &self.class_weights) {
            (Targets::Classes(classes), Some(weights)) => weights.sum_over(classes),
            _ => Ok(targets.tensor().dim(0)? as f64),
        }
    }

    fn can_be_recorded(&self) -> bool {
        true
    }
}
