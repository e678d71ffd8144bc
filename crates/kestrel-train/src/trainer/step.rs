//! One step of the training loop: forward, backward, update; and what keeps numbers that are none from the weights.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use kestrel_data::loader::Batch;
use kestrel_kernels::autocast::autocast;
use kestrel_kernels::tape;
use kestrel_models::Mode;

use super::pending::{Ended, Pending};
use crate::evaluate::scalar;
use crate::grad_clip::{grad_norm, replace, squared_norms, total_norm};
use crate::loss::Targets;
use crate::lr_scheduler::Event;
use crate::optim::NamedVars;
use crate::{Error, NonFinite, Result, TrainPass, Trainer};

/// What the forward and the backward pass of a batch gave.
pub(crate) struct Pass {
    /// Not a number where it was not read.
    pub(crate) loss: f64,
    /// The same on its device, without a graph.
    pub(super) loss_on_device: Tensor,
    pub(crate) logits: Tensor,
    /// Of the loss times the scale, where there is one.
    pub(crate) grads: GradStore,
    pub(super) forward: Duration,
    pub(super) backward: Duration,
}

impl Trainer {
    /// Forward and backward of a batch. `step` is its number in the epoch from 1; `part` counts the batches of one
    /// optimiser's step from 0. The loss is looked at if it is `read`.
    pub(crate) fn forward_backward(&self, batch: &Batch, step: usize, part: usize, read: bool) -> Result<Pass> {
        self.pass(batch, step, part, read)
            .map_err(|error| told_of_memory(error, batch.len()))
    }

    fn pass(&self, batch: &Batch, step: usize, part: usize, read: bool) -> Result<Pass> {
        let mode = Mode::Train {
            seed: self.config.seed,
            // Another dropout for each batch, also where several make a step.
            step: self.progress.step * self.accumulation as u64 + part as u64,
        };
        // Where nothing is read back a pass may be recorded; a scale, or gradients that wait for more, would be those of the recording.
        if !read && self.grad_scaler.is_none() && self.accumulation == 1 && !batch.images.device().is_cpu() {
            return self.pass_by_recorder(batch, mode);
        }
        let started = Instant::now();
        let (logits, loss_tensor) = autocast(self.precision, || -> Result<_> {
            let logits = {
                let _span = tracing::debug_span!("forward").entered();
                self.model.forward(&batch.images, mode)?
            };
            let loss = self.loss.forward(&logits, Targets::of(batch))?;
            Ok((logits, loss))
        })?;
        let loss = if read { scalar(&loss_tensor)? } else { f64::NAN };
        let forward = started.elapsed();
        if read && !loss.is_finite() {
            let grads = tape::backward(&loss_tensor)?;
            return Err(self.non_finite(&grads, &self.optimizer.params(), step, loss, &batch.indices));
        }
        let _span = tracing::debug_span!("backward").entered();
        let started = Instant::now();
        let loss_on_device = loss_tensor.detach();
        let grads = match &self.grad_scaler {
            Some(scaler) => tape::backward(&(loss_tensor * scaler.scale())?)?,
            None => tape::backward(&loss_tensor)?,
        };
        Ok(Pass {
            loss,
            loss_on_device,
            logits,
            grads,
            forward,
            backward: started.elapsed(),
        })
    }

    /// A pass on a GPU, of which nothing is read.
    fn pass_by_recorder(&self, batch: &Batch, mode: Mode) -> Result<Pass> {
        let _span = tracing::debug_span!("forward and backward").entered();
        let started = Instant::now();
        let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let found = recorder.forward_backward(TrainPass {
            model: self.model.as_ref(),
            loss: self.loss.as_ref(),
            precision: self.precision,
            images: &batch.images,
            targets: Targets::of(batch),
            mode,
        })?;
        Ok(Pass {
            loss: f64::NAN,
            loss_on_device: found.loss,
            logits: found.logits,
            grads: found.grads,
            // The host's time for launching both; a device's own is not looked at.
            forward: started.elapsed(),
            backward: Duration::ZERO,
        })
    }

    /// The optimiser's step on the mean of the gradients, and all that follows a step. Gives the gradients' norm; none where the
    /// step was skipped.
    ///
    /// `step`, `loss` and `samples` are what an error says.
    pub(super) fn optimizer_step(
        &mut self,
        mut grads: GradStore,
        params: &NamedVars,
        step: usize,
        loss: f64,
        samples: &[usize],
    ) -> Result<Option<f64>> {
        let _span = tracing::debug_span!("optimizer").entered();
        let norm = self.unscale(&mut grads, params)?;
        if !norm.is_finite() {
            if let Some(scaler) = self.grad_scaler.as_ref().filter(|scaler| !scaler.is_lost()) {
                let scale = scaler.scale();
                tracing::debug!(
                    step,
                    scale,
                    "Step skipped: gradients overflow; the loss's scale is now {scale}"
                );
                return Ok(None);
            }
            return Err(self.non_finite(&grads, params, step, loss, samples));
        }
        self.grad_clip.apply(&mut grads, params, norm)?;
        self.optimizer.step(&grads)?;
        self.after_step()?;
        Ok(Some(norm))
    }

    /// The optimiser's step on the mean of the gradients without reading a number: it is gated by all that is pending and by the
    /// gradients' norm. Gives what there is to be read of it.
    pub(super) fn gated_step(
        &mut self,
        mut grads: GradStore,
        params: &NamedVars,
        pending: &mut Pending,
        samples: &[usize],
    ) -> Result<Ended> {
        let _span = tracing::debug_span!("optimizer").entered();
        let (names, squares) = match squared_norms(&grads, params)? {
            Some((names, squares)) => {
                let norm = total_norm(&squares)?;
                pending.require_finite(&norm)?;
                self.grad_clip.apply_on_device(&mut grads, params, &norm)?;
                (names, squares)
            }
            None => (Vec::new(), Tensor::zeros(0, DType::F64, &Device::Cpu)?),
        };
        self.optimizer.step_gated(&grads, pending.gate())?;
        self.after_step()?;
        Ok(Ended {
            names,
            squares,
            samples: samples.to_vec(),
        })
    }

    fn after_step(&mut self) -> Result<()> {
        self.progress.step += 1;
        if let Some(average) = &mut self.average {
            average.on_step(self.model.params())?;
        }
        self.schedule(Event::Step);
        Ok(())
    }

    /// Takes the loss's scale out of the gradients, and moves it by what they are. Gives their norm.
    pub(crate) fn unscale(&mut self, grads: &mut GradStore, params: &NamedVars) -> Result<f64> {
        let Some(scaler) = &mut self.grad_scaler else {
            return grad_norm(grads, params);
        };
        let inverse = scaler.inverse();
        replace(grads, params, |grad| grad * inverse)?;
        let norm = grad_norm(grads, params)?;
        scaler.update(norm.is_finite());
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
pub(crate) fn told_of_memory(error: Error, batch_size: usize) -> Error {
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
