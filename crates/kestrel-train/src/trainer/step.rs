//! One step of the training loop: forward, backward, update; and what keeps numbers that are none from the weights.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use kestrel_data::loader::Batch;
use kestrel_kernels::tape;
use kestrel_models::Mode;

use crate::evaluate::scalar;
use crate::grad_clip::grad_norm;
use crate::loss::Targets;
use crate::lr_scheduler::Event;
use crate::optim::NamedVars;
use crate::{Error, NonFinite, Result, Trainer};

/// What the forward and the backward pass of a batch gave.
pub(crate) struct Pass {
    pub(crate) loss: f64,
    pub(crate) logits: Tensor,
    pub(crate) grads: GradStore,
    pub(super) forward: Duration,
    pub(super) backward: Duration,
}

impl Trainer {
    /// Forward and backward of a batch. `step` is its number in the epoch from 1; `part` counts the batches of one
    /// optimiser's step from 0.
    pub(crate) fn forward_backward(&self, batch: &Batch, step: usize, part: usize) -> Result<Pass> {
        self.pass(batch, step, part)
            .map_err(|error| told_of_memory(error, batch.len()))
    }

    fn pass(&self, batch: &Batch, step: usize, part: usize) -> Result<Pass> {
        let mode = Mode::Train {
            seed: self.config.seed,
            // Another dropout for each batch, also where several make a step.
            step: self.progress.step * self.accumulation as u64 + part as u64,
        };
        let started = Instant::now();
        let logits = {
            let _span = tracing::debug_span!("forward").entered();
            self.model.forward(&batch.images, mode)?
        };
        let loss_tensor = self.loss.forward(&logits, Targets::of(batch))?;
        let loss = scalar(&loss_tensor)?;
        let forward = started.elapsed();
        if !loss.is_finite() {
            let grads = tape::backward(&loss_tensor)?;
            return Err(self.non_finite(&grads, &self.optimizer.params(), step, loss, &batch.indices));
        }
        let _span = tracing::debug_span!("backward").entered();
        let started = Instant::now();
        let grads = tape::backward(&loss_tensor)?;
        Ok(Pass {
            loss,
            logits,
            grads,
            forward,
            backward: started.elapsed(),
        })
    }

    /// The optimiser's step on the mean of the gradients, and all that follows a step. Gives the gradients' norm.
    ///
    /// `step`, `loss` and `samples` are what an error says.
    pub(super) fn optimizer_step(
        &mut self,
        mut grads: GradStore,
        params: &NamedVars,
        step: usize,
        loss: f64,
        samples: &[usize],
    ) -> Result<f64> {
        let _span = tracing::debug_span!("optimizer").entered();
        let norm = grad_norm(&grads, params)?;
        if !norm.is_finite() {
            return Err(self.non_finite(&grads, params, step, loss, samples));
        }
        self.grad_clip.apply(&mut grads, params, norm)?;
        self.optimizer.step(&grads)?;
        self.progress.step += 1;
        if let Some(average) = &mut self.average {
            average.on_step(self.model.params())?;
        }
        self.schedule(Event::Step);
        Ok(norm)
    }

    fn non_finite(&self, grads: &GradStore, params: &NamedVars, step: usize, loss: f64, samples: &[usize]) -> Error {
        let found = NonFinite {
            epoch: self.progress.epoch + 1,
            step,
            steps_made: self.progress.step,
            lrs: self.optimizer.lrs(),
            loss,
            grad_norm: f64::NAN,
            norms: BTreeMap::new(),
            samples: samples.to_vec(),
        };
        match found.with_norms(grads, params) {
            Ok(found) => Error::NonFinite(Box::new(found)),
            Err(error) => error,
        }
    }
}

/// Names the batch size where a device has no memory left; candle has no variant for that, only the driver's words.
fn told_of_memory(error: Error, batch_size: usize) -> Error {
    let from_device = matches!(error, Error::Candle(_) | Error::Kernel(_) | Error::Model(_));
    let text = error.to_string().to_ascii_lowercase();
    if from_device && (text.contains("out of memory") || text.contains("out_of_memory")) {
        return Error::OutOfMemory {
            batch_size,
            source: Box::new(error),
        };
    }
    error
}
