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
        // A batch of no weight has nothing to say, nor have two of them anything else than one. A loss that is NaN over nothing, as
        // cross-entropy where all classes weigh 0, has ended the run before this.
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

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor, Var};

    use super::*;

    /// The mean of gradients with these weights.
    fn mean(parts: &[(f32, f64)]) -> f32 {
        let var = Var::new(0f32, &Device::Cpu).unwrap();
        let params = vec![("a".to_owned(), var.clone())];
        let mut accumulator = Accumulator::default();
        for (i, (grad, weight)) in parts.iter().enumerate() {
            let mut grads = GradStore::default();
            grads.insert(&var, Tensor::new(*grad, &Device::Cpu).unwrap());
            accumulator.add(grads, *weight, &params, i + 1 < parts.len()).unwrap();
        }
        let mean = accumulator.take().unwrap();
        mean.get(&var).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn a_batch_of_no_weight_contributes_nothing() {
        assert_eq!(mean(&[(1.0, 1.0), (4.0, 2.0)]), 3.0);
        for parts in [
            [(9.0, 0.0), (1.0, 1.0), (4.0, 2.0)],
            [(1.0, 1.0), (9.0, 0.0), (4.0, 2.0)],
            [(1.0, 1.0), (4.0, 2.0), (9.0, 0.0)],
        ] {
            assert_eq!(mean(&parts), 3.0, "{parts:?}");
        }
        assert_eq!(mean(&[(0.0, 0.0), (0.0, 0.0)]), 0.0);
    }
}
