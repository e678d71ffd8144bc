//! Averages of the weights over training: exponential (EMA) or equal (SWA).

use candle_core::Tensor;
use kestrel_kernels::update::average_step;
use kestrel_models::{Params, StateDict};

use crate::optim::{Range, check};
use crate::{Error, Result};

/// Which weights are averaged, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AverageKind {
    /// After each step: `average = decay · average + (1 − decay) · weights`.
    Ema {
        /// In `[0, 1]`.
        decay: f64,
    },
    /// After each epoch from `start_epoch` on: the mean of the weights so far.
    Swa {
        /// From 1.
        start_epoch: usize,
    },
}

/// An average of a model's weights, which is what is validated and saved as the best weights.
///
/// Parameters and buffers are averaged alike, batch norm's running statistics among them, as
/// `torch.optim.swa_utils.AveragedModel(use_buffers=True)` does. These are not the statistics of the averaged weights:
/// `torch.optim.swa_utils.update_bn`, which measures those in a further pass over the data, is not run. The first update copies
/// the model.
///
/// # Source
/// `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn` or `get_swa_multi_avg_fn`; Izmailov et al. 2018 for
/// SWA; the golden file `averages`.
#[derive(Debug)]
pub struct WeightAverage {
    kind: AverageKind,
    count: u64,
    average: StateDict,
}

impl WeightAverage {
    /// An average over nothing.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for a value outside its range.
    pub fn new(kind: AverageKind) -> Result<Self> {
        match kind {
            AverageKind::Ema { decay } => check(&[("decay", decay, Range::Unit)])?,
            AverageKind::Swa { start_epoch: 0 } => {
                return Err(Error::InvalidConfig {
                    field: "start_epoch",
                    expected: "at least 1",
                    got: "0".to_owned(),
                });
            }
            AverageKind::Swa { .. } => {}
        }
        Ok(Self {
            kind,
            count: 0,
            average: StateDict::new(),
        })
    }

    /// The average, once there is one.
    pub fn weights(&self) -> Option<&StateDict> {
        (self.count > 0).then_some(&self.average)
    }

    /// How many states of the weights were averaged.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes the weights in.
    ///
    /// # Errors
    /// Where a device fails.
    pub fn update(&mut self, params: &Params) -> Result<()> {
        if self.count == 0 {
            self.average = params.state_dict()?;
        } else {
            let weight = match self.kind {
                AverageKind::Ema { decay } => 1.0 - decay,
                AverageKind::Swa { .. } => 1.0 / (self.count + 1) as f64,
            };
            for (name, var) in params.all() {
                if let Some(average) = self.average.get(&name) {
                    average_step(average, &var, weight)?;
                }
            }
        }
        self.count += 1;
        Ok(())
    }

    pub(crate) fn on_step(&mut self, params: &Params) -> Result<()> {
        match self.kind {
            AverageKind::Ema { .. } => self.update(params),
            AverageKind::Swa { .. } => Ok(()),
        }
    }

    pub(crate) fn on_epoch(&mut self, epoch: usize, params: &Params) -> Result<()> {
        match self.kind {
            AverageKind::Swa { start_epoch } if epoch >= start_epoch => self.update(params),
            _ => Ok(()),
        }
    }

    /// Sets the whole state; `average` has `like`'s names and shapes, or is empty with a count of 0.
    pub(crate) fn load(&mut self, count: u64, average: &StateDict, like: &StateDict) -> Result<()> {
        let fits = |(name, tensor): (&String, &Tensor)| {
            average
                .get(name)
                .is_some_and(|t| t.shape() == tensor.shape() && t.dtype() == tensor.dtype())
        };
        if count > 0 && !(average.len() == like.len() && like.iter().all(fits)) {
            return Err(Error::CheckpointMismatch {
                reason: "the averaged weights are not this model's".to_owned(),
            });
        }
        let mut own = StateDict::new();
        if count > 0 {
            for (name, tensor) in like {
                if let Some(average) = average.get(name) {
                    // Moved in place from now on, so never shared.
                    own.insert(name.clone(), average.to_device(tensor.device())?.copy()?);
                }
            }
        }
        self.average = own;
        self.count = count;
        Ok(())
    }
}
