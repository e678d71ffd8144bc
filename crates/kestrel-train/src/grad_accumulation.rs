//! Gradients of several batches as though they had been one.

use candle_core::backprop::GradStore;
use kestrel_kernels::update::average_step;

use crate::Result;
use crate::optim::NamedVars;

/// The mean of the gradients of some batches, each weighted by what its loss was divided by.
///
/// The result is the large batch's gradient to rounding. Batch norm's statistics stay those of each batch.
#[derive(Default)]
pub(crate) struct Accumulator {
    mean: Option<GradStore>,
    weight: f64,
    batches: usize,
}

impl Accumulator {
    /// How many batches have been added.
    pub(crate) fn batches(&self) -> usize {
        self.batches
    }

    /// Adds a batch's gradients; `more` says whether others will follow before [`Accumulator::take`].
    pub(crate) fn add(&mut self, mut grads: GradStore, weight: f64, params: &NamedVars, more: bool) -> Result<()> {
        self.weight += weight;
        self.batches += 1;
        let Some(mean) = &mut self.mean else {
            if more {
                // The mean is moved in place, and gradients may share their storage.
                for (_, var) in params {
                    if let Some(grad) = grads.get(var) {
                        let own = grad.detach().copy()?;
                        grads.insert(var, own);
                    }
                }
            }
            self.mean = Some(grads);
            return Ok(());
        };
        // A batch of no weight, as where all its classes weigh 0, has nothing to say.
        let share = if self.weight > 0.0 { weight / self.weight } else { 0.0 };
        for (_, var) in params {
            match (mean.get(var), grads.remove(var)) {
                (Some(mean), Some(grad)) => average_step(mean, &grad, share)?,
                (Some(mean), None) => average_step(mean, &mean.zeros_like()?, share)?,
                (None, Some(grad)) => {
                    let own = (grad.detach() * share)?;
                    mean.insert(var, own);
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// The mean, after which the accumulator is empty.
    pub(crate) fn take(&mut self) -> Option<GradStore> {
        std::mem::take(self).mean
    }
}
