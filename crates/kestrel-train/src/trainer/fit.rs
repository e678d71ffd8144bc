//! The training loop.

use std::time::Instant;

use candle_core::Device;
use kestrel_kernels::autocast::autocast;

use crate::callback::{EpochStart, EpochTiming};
use crate::grad_accumulation::Accumulator;
use crate::loss::Targets;
use crate::lr_scheduler::Event;
use crate::metrics::argmax;
use crate::progress::Position;
use crate::trainer::pending::{Pending, Pushed};
use crate::trainer::step::told_of_memory;
use crate::weight_average::WeightAverage;
use crate::{BatchSource, Callback, Control, EpochReport, Error, Evaluation, Result, StepReport, Trainer, evaluate};

/// What the training part of an epoch came to.
#[derive(Clone, Copy, Debug)]
pub struct TrainedEpoch {
    /// Whether a callback stopped it.
    pub control: Control,
    /// The loss averaged over the batches so far.
    pub loss: f64,
    /// The accuracy over the images so far, in `[0, 1]`.
    pub accuracy: f64,
    /// Where its time went.
    pub timing: EpochTiming,
}

impl Trainer {
    /// Trains until all epochs are done or a callback stops the run. It goes on from where the progress says, also within an
    /// epoch.
    ///
    /// Each epoch trains on every batch of `train`, evaluates on `val`, and tells the scheduler the validation loss
    /// averaged over batches. The scheduler also hears of each step; its new rates hold from the next step on.
    ///
    /// # Errors
    /// [`Error::NonFinite`], [`Error::OutOfMemory`], [`Error::EmptySplit`], or what the loader, the model or a callback gives.
    pub fn fit(
        &mut self,
        train: &dyn BatchSource,
        val: &dyn BatchSource,
        callbacks: &mut [&mut dyn Callback],
    ) -> Result<()> {
        for (split, loader) in [("training", train), ("validation", val)] {
            if loader.num_batches() == 0 {
                return Err(Error::EmptySplit { split });
            }
        }
        let result = self.epochs(train, val, callbacks);
        if let Err(error) = &result {
            callbacks.iter_mut().for_each(|c| c.on_error(error));
            return result;
        }
        self.end_fit(callbacks)
    }

    /// Tells every callback, also where one before it fails: the checkpointer may come after it. Gives the first error.
    fn end_fit(&self, callbacks: &mut [&mut dyn Callback]) -> Result<()> {
        let mut result = Ok(());
        for callback in callbacks {
            match callback.on_fit_end(self) {
                Err(error) if result.is_err() => tracing::warn!("{error}"),
                Err(error) => result = Err(error),
                Ok(()) => {}
            }
        }
        result
    }

    fn epochs(
        &mut self,
        train: &dyn BatchSource,
        val: &dyn BatchSource,
        callbacks: &mut [&mut dyn Callback],
    ) -> Result<()> {
        let mut control = ask(callbacks, |c| c.on_fit_start(self))?;
        while control == Control::Continue && self.progress.epoch < self.config.epochs {
            control = self.one_epoch(train, val, callbacks)?;
        }
        Ok(())
    }

    /// Trains and validates an epoch, or what is left of it.
    fn one_epoch(
        &mut self,
        train: &dyn BatchSource,
        val: &dyn BatchSource,
        callbacks: &mut [&mut dyn Callback],
    ) -> Result<Control> {
        let epoch = self.progress.epoch + 1;
        let span = tracing::info_span!("epoch", epoch);
        let _guard = span.enter();
        let trained = self.train_one_epoch(train, callbacks)?;
        if trained.control == Control::Stop {
            return Ok(Control::Stop);
        }
        let started = Instant::now();
        let Some(validation) = self.validate(val, callbacks)? else {
            return Ok(Control::Stop);
        };
        let timing = EpochTiming {
            validate: started.elapsed(),
            ..trained.timing
        };
        let report = self.complete_epoch(&trained, &validation);
        ask(callbacks, |c| c.on_epoch_end(self, &report, &timing))
    }

    /// Brings the progress and the scheduler to the end of an epoch.
    fn complete_epoch(&mut self, trained: &TrainedEpoch, validation: &Evaluation) -> EpochReport {
        let epoch = self.progress.epoch + 1;
        let lr = self
            .progress
            .position
            .take()
            .map_or_else(|| self.optimizer.lr(), |position| position.lr);
        let val_accuracy = validation.accuracy();
        // Weights that give no number are the best of nothing.
        let improved =
            validation.loss.is_finite() && self.progress.best_accuracy.is_none_or(|best| val_accuracy > best);
        if improved {
            self.progress.best_accuracy = Some(val_accuracy);
            self.progress.best_epoch = Some(epoch);
            self.progress.best_step = Some(self.progress.step);
        }
        self.schedule(Event::Epoch {
            val_loss: validation.loss,
        });
        let report = EpochReport {
            epoch,
            step: self.progress.step,
            train_loss: trained.loss,
            train_accuracy: trained.accuracy,
            val_loss: validation.loss,
            val_accuracy,
            lr,
            improved,
            val_top5: validation.top5(),
            temperature: validation.temperature(),
        };
        self.progress.epoch = epoch;
        self.progress.history.push(report.clone());
        report
    }

    /// Evaluates the weights that count: the average's, if there is one, in the model's place for as long. None where a
    /// callback stops the run.
    fn validate(&self, val: &dyn BatchSource, callbacks: &mut [&mut dyn Callback]) -> Result<Option<Evaluation>> {
        let params = self.model.params();
        let own = match self.average.as_ref().and_then(WeightAverage::weights) {
            None => None,
            Some(average) => {
                let own = params.state_dict()?;
                params.load_state_dict(average)?;
                Some(own)
            }
        };
        let mut on_batch = |done, total| match ask(callbacks, |c| c.on_validation_batch(done, total))? {
            Control::Continue => Ok(()),
            Control::Stop => Err(Error::Stopped),
        };
        let validation = autocast(self.precision, || evaluate(self.model.as_ref(), val, &mut on_batch));
        if let Some(own) = own {
            params.load_state_dict(&own)?;
        }
        match validation {
            Err(Error::Stopped) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The training part of the next epoch, or what is left of it.
    ///
    /// # Errors
    /// As [`Trainer::fit`].
    pub fn train_one_epoch(
        &mut self,
        loader: &dyn BatchSource,
        callbacks: &mut [&mut dyn Callback],
    ) -> Result<TrainedEpoch> {
        let mut position = match self.progress.position {
            Some(position) => position,
            None => Position::start(self.optimizer.lr()),
        };
        let mut timing = EpochTiming::default();
        let mut control = Control::Continue;
        if !position.trained {
            control = self.train_batches(loader, callbacks, &mut position, &mut timing)?;
        }
        self.progress.position = Some(position);
        Ok(TrainedEpoch {
            control,
            loss: position.loss.value(),
            accuracy: position.accuracy.value(),
            timing,
        })
    }

    /// Whether numbers are read later than in their step. A scaled loss is waited for: the next scale depends on its gradients.
    fn defers_reads(&self, device: &Device) -> bool {
        self.grad_scaler.is_none() && self.deferred_reads.unwrap_or(!device.is_cpu())
    }

    fn train_batches(
        &mut self,
        loader: &dyn BatchSource,
        callbacks: &mut [&mut dyn Callback],
        position: &mut Position,
        timing: &mut EpochTiming,
    ) -> Result<Control> {
        let epoch = self.progress.epoch + 1;
        let num_steps = loader.num_batches();
        let start = EpochStart {
            epoch,
            num_steps,
            num_samples: loader.num_samples(),
            samples_done: position.accuracy.total(),
        };
        callbacks.iter_mut().try_for_each(|c| c.on_epoch_start(&start))?;
        let started = Instant::now();
        let mut batches = loader.epoch_from(self.progress.epoch as u64, position.next_batch)?;
        loader.add_bad_samples(&self.progress.bad_samples);
        let params = self.optimizer.params();
        let mut accumulator = Accumulator::default();
        let mut samples = Vec::new();
        let mut batch_size = 0;
        let mut control = Control::Continue;
        let mut pending = None;
        while let Some(batch) = batches.next() {
            let batch = batch?;
            batch_size = batch.len();
            if pending.is_none() && self.defers_reads(batch.images.device()) {
                pending = Some(Pending::new(batch.images.device())?);
            }
            let step = position.batches + 1;
            let span = tracing::debug_span!("step", step);
            let _guard = span.enter();
            let pass = self.forward_backward(&batch, step, accumulator.batches(), pending.is_none())?;
            timing.forward += pass.forward;
            timing.backward += pass.backward;
            let lrs = self.optimizer.lrs();
            let lr = self.optimizer.lr();
            let steps_made = self.progress.step;
            let targets = Targets::of(&batch);
            let last = accumulator.batches() + 1 == self.accumulation;
            let divisor = match &pending {
                // A batch alone is weighed against none, and to know its weight may be to wait for the device.
                Some(_) if self.accumulation == 1 => 1.0,
                _ => self.loss.divisor(targets)?,
            };
            accumulator.add(pass.grads, divisor, &params, !last)?;
            samples.extend_from_slice(&batch.indices);
            let (mut grad_norm, mut skipped, mut ended) = (None, false, None);
            if let Some(pending) = &mut pending {
                pending.require_finite(&pass.loss_on_device)?;
            }
            if last && let Some(grads) = accumulator.take() {
                let before = Instant::now();
                if let Some(pending) = &mut pending {
                    let made = self.gated_step(grads, &params, pending, &samples);
                    ended = Some(made.map_err(|error| told_of_memory(error, batch_size))?);
                } else {
                    let made = self.optimizer_step(grads, &params, step, pass.loss, &samples);
                    grad_norm = made.map_err(|error| told_of_memory(error, batch_size))?;
                    skipped = grad_norm.is_none();
                }
                timing.optimizer += before.elapsed();
                samples.clear();
            }
            position.next_batch = batches.next_batch();
            position.batches = step;
            self.progress.samples_seen += batch.len() as u64;
            timing.images += batch.len() as u64;

            let logs = self.config.log_every > 0 && step.is_multiple_of(self.config.log_every);
            let (mut loss, mut settled) = (pass.loss, true);
            if let Some(pending) = &mut pending {
                let ends_step = ended.is_some();
                let pushed = Pushed {
                    step,
                    batch: &batch,
                    loss: &pass.loss_on_device,
                    logits: &pass.logits,
                    lrs,
                    steps_made,
                };
                pending.push(pushed, ended)?;
                settled = logs || pending.is_due() || (ends_step && callbacks.iter().any(|c| c.wants_numbers(self)));
                if settled {
                    pending.read(epoch, position)?;
                }
                loss = pending.loss();
                grad_norm = ends_step.then(|| pending.grad_norm());
            } else {
                position
                    .accuracy
                    .add(&argmax(&pass.logits.detach())?, &targets.classes()?);
                position.loss.add(pass.loss);
                position.recent_loss.add(pass.loss);
            }
            let mean_loss = logs.then(|| position.recent_loss.value());
            if let Some(recent) = mean_loss {
                let (epochs, accuracy) = (self.config.epochs, position.accuracy.value());
                let percent = 100.0 * accuracy;
                tracing::info!(
                    epoch,
                    step,
                    loss = recent,
                    accuracy,
                    "Epoch [{epoch}/{epochs}], Step [{step}/{num_steps}], Loss: {recent:.4}, Acc: {percent:.2}%"
                );
                position.recent_loss = crate::metrics::Mean::default();
            }
            self.progress.position = Some(*position);
            self.progress.bad_samples = loader.bad_samples();
            let report = StepReport {
                epoch,
                step,
                num_steps,
                batch_size: batch.len(),
                loss,
                running_accuracy: position.accuracy.value(),
                lr,
                grad_norm,
                skipped,
                mean_loss,
                settled,
            };
            control = control.or(ask(callbacks, |c| c.on_step_end(self, &report))?);
            if control == Control::Stop && report.ends_step() {
                break;
            }
        }
        self.progress.bad_samples = loader.bad_samples();
        // Where the run is stopped, nothing is left over: it stops after a step.
        if let Some(grads) = accumulator.take() {
            // Too few batches were left for a whole step; how many is not known before, as bad samples are dropped.
            if let Some(pending) = &mut pending {
                let (lrs, steps_made) = (self.optimizer.lrs(), self.progress.step);
                let ended = self.gated_step(grads, &params, pending, &samples);
                let ended = ended.map_err(|error| told_of_memory(error, batch_size))?;
                pending.push_end(position.batches, ended, lrs, steps_made);
            } else {
                let loss = position.loss.value();
                self.optimizer_step(grads, &params, position.batches, loss, &samples)
                    .map_err(|error| told_of_memory(error, batch_size))?;
            }
        }
        if let Some(pending) = &mut pending {
            pending.read(epoch, position)?;
        }
        if control == Control::Continue {
            if let Some(average) = &mut self.average {
                average.on_epoch(epoch, self.model.params())?;
            }
            position.trained = true;
        }
        timing.train = started.elapsed();
        timing.load_wait = batches.wait();
        timing.images_per_second = timing.images as f64 / timing.train.as_secs_f64().max(f64::MIN_POSITIVE);
        Ok(control)
    }
}

/// Asks every callback, also where one has already said to stop.
fn ask(
    callbacks: &mut [&mut dyn Callback],
    mut hook: impl FnMut(&mut dyn Callback) -> Result<Control>,
) -> Result<Control> {
    callbacks
        .iter_mut()
        .try_fold(Control::Continue, |control, c| Ok(control.or(hook(&mut **c)?)))
}
