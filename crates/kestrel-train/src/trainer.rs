//! The training loop.

use std::time::Instant;

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use kestrel_data::loader::Batch;
use kestrel_kernels::tape;
use kestrel_models::{Mode, Model, StateDict};
use serde::{Deserialize, Serialize};

use crate::callback::EpochTiming;
use crate::evaluate::scalar;
use crate::grad_accumulation::Accumulator;
use crate::grad_clip::GradClip;
use crate::loss::{CrossEntropyLoss, Loss, Targets};
use crate::lr_scheduler::{Event, LrScheduler};
use crate::metrics::{Accuracy, Mean, argmax};
use crate::optim::{NamedVars, Optimizer};
use crate::weight_average::WeightAverage;
use crate::{BatchSource, Callback, Control, EpochReport, Error, Evaluation, Result, StepReport, evaluate};

/// The options of the loop itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainerConfig {
    /// Epochs in all; a resumed run does those that are left.
    pub epochs: usize,
    /// Steps between two log lines; 0 for none.
    pub log_every: usize,
    /// The run's seed.
    pub seed: u64,
}

/// How far a run has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Epochs completed.
    pub epoch: usize,
    /// Optimiser steps made.
    pub step: u64,
    /// Training images seen.
    pub samples_seen: u64,
    /// The best validation accuracy in `[0, 1]`, once there is one.
    pub best_accuracy: Option<f64>,
    /// The epoch of the best accuracy, from 1.
    pub best_epoch: Option<usize>,
    /// Every completed epoch.
    pub history: Vec<EpochReport>,
}

/// A run: a model, what moves it, and how far it has come.
pub struct Trainer {
    model: Box<dyn Model>,
    optimizer: Box<dyn Optimizer>,
    scheduler: Option<Box<dyn LrScheduler>>,
    loss: Box<dyn Loss>,
    grad_clip: GradClip,
    accumulation: usize,
    average: Option<WeightAverage>,
    config: TrainerConfig,
    progress: Progress,
}

impl Trainer {
    /// A run at its start, with plain cross-entropy for a loss; the scheduler sets the first learning rates.
    pub fn new(
        model: Box<dyn Model>,
        mut optimizer: Box<dyn Optimizer>,
        mut scheduler: Option<Box<dyn LrScheduler>>,
        config: TrainerConfig,
    ) -> Self {
        if let Some(scheduler) = &mut scheduler {
            let mut lrs = optimizer.lrs();
            scheduler.start(&mut lrs);
            optimizer.set_lrs(&lrs);
        }
        Self {
            model,
            optimizer,
            scheduler,
            loss: Box::new(CrossEntropyLoss::default()),
            grad_clip: GradClip::default(),
            accumulation: 1,
            average: None,
            config,
            progress: Progress::default(),
        }
    }

    /// Trains on another loss. Validation stays plain cross-entropy, so that runs can be compared.
    #[must_use]
    pub fn with_loss(mut self, loss: Box<dyn Loss>) -> Self {
        self.loss = loss;
        self
    }

    /// Clips gradients before each step.
    #[must_use]
    pub fn with_grad_clip(mut self, grad_clip: GradClip) -> Self {
        self.grad_clip = grad_clip;
        self
    }

    /// Makes a step of the optimiser every `batches` batches (at least 1), on their mean gradient: to rounding that of one
    /// batch of all their images. An epoch's last step may have fewer.
    #[must_use]
    pub fn with_accumulation(mut self, batches: usize) -> Self {
        self.accumulation = batches.max(1);
        self
    }

    /// Averages the weights; the average is what is validated, and saved as the best weights.
    #[must_use]
    pub fn with_average(mut self, average: WeightAverage) -> Self {
        self.average = Some(average);
        self
    }

    /// Goes on from where another trainer of the same model stopped, with an optimiser and a scheduler of its own.
    #[must_use]
    pub fn with_progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// The model.
    pub fn model(&self) -> &dyn Model {
        self.model.as_ref()
    }

    /// The optimiser.
    pub fn optimizer(&self) -> &dyn Optimizer {
        self.optimizer.as_ref()
    }

    /// The scheduler, if any.
    pub fn scheduler(&self) -> Option<&dyn LrScheduler> {
        self.scheduler.as_deref()
    }

    /// The average of the weights, if one is taken.
    pub fn average(&self) -> Option<&WeightAverage> {
        self.average.as_ref()
    }

    /// The weights that validation measures: the average once there is one, else the model's.
    ///
    /// # Errors
    /// Where a device cannot copy.
    pub fn validated_weights(&self) -> Result<StateDict> {
        match self.average.as_ref().and_then(WeightAverage::weights) {
            Some(average) => Ok(average.clone()),
            None => Ok(self.model.params().state_dict()?),
        }
    }

    /// How far the run has come.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The options.
    pub fn config(&self) -> TrainerConfig {
        self.config
    }

    /// What a checkpoint sets; see [`crate::checkpoint::Checkpoint::restore`].
    pub(crate) fn restore_parts(&mut self) -> (&dyn Model, &mut dyn Optimizer, Option<&mut Box<dyn LrScheduler>>) {
        (self.model.as_ref(), self.optimizer.as_mut(), self.scheduler.as_mut())
    }

    pub(crate) fn average_mut(&mut self) -> Option<&mut WeightAverage> {
        self.average.as_mut()
    }

    pub(crate) fn model_and_optimizer(&mut self) -> (&dyn Model, &mut dyn Optimizer) {
        (self.model.as_ref(), self.optimizer.as_mut())
    }

    pub(crate) fn set_progress(&mut self, progress: Progress) {
        self.progress = progress;
    }

    /// Trains until all epochs are done or a callback stops the run.
    ///
    /// Each epoch trains on every batch of `train`, evaluates on `val`, and tells the scheduler the validation loss
    /// averaged over batches. The scheduler also hears of each step; its new rates hold from the next step on.
    ///
    /// # Errors
    /// [`Error::NonFiniteLoss`], [`Error::EmptySplit`], or what the loader, the model or a callback gives.
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
        while self.progress.epoch < self.config.epochs {
            let epoch = self.progress.epoch + 1;
            let span = tracing::info_span!("epoch", epoch);
            let _guard = span.enter();
            let lr = self.optimizer.lr();
            let (train_loss, train_accuracy, mut timing) = self.train_one_epoch(train, callbacks)?;

            let started = Instant::now();
            if let Some(average) = &mut self.average {
                average.on_epoch(epoch, self.model.params())?;
            }
            let validation = self.validate(val, callbacks)?;
            timing.validate = started.elapsed();
            let val_accuracy = validation.accuracy();
            let improved = self.progress.best_accuracy.is_none_or(|best| val_accuracy > best);
            if improved {
                self.progress.best_accuracy = Some(val_accuracy);
                self.progress.best_epoch = Some(epoch);
            }
            self.schedule(Event::Epoch {
                val_loss: validation.loss,
            });
            let report = EpochReport {
                epoch,
                train_loss,
                train_accuracy,
                val_loss: validation.loss,
                val_accuracy,
                lr,
                improved,
                temperature: validation.temperature(),
            };
            self.progress.epoch = epoch;
            self.progress.history.push(report.clone());
            let mut control = Control::Continue;
            for callback in callbacks.iter_mut() {
                if callback.on_epoch_end(self, &report, &timing)? == Control::Stop {
                    control = Control::Stop;
                }
            }
            if control == Control::Stop {
                break;
            }
        }
        Ok(())
    }

    /// Evaluates the weights that count: the average's, if there is one, in the model's place for as long.
    fn validate(&self, val: &dyn BatchSource, callbacks: &mut [&mut dyn Callback]) -> Result<Evaluation> {
        let params = self.model.params();
        let own = match self.average.as_ref().and_then(WeightAverage::weights) {
            None => None,
            Some(average) => {
                let own = params.state_dict()?;
                params.load_state_dict(average)?;
                Some(own)
            }
        };
        let validation = evaluate(self.model.as_ref(), val, &mut |done, total| {
            callbacks
                .iter_mut()
                .try_for_each(|c| c.on_validation_batch(done, total))
        });
        if let Some(own) = own {
            params.load_state_dict(&own)?;
        }
        validation
    }

    /// Tells the scheduler of an event.
    fn schedule(&mut self, event: Event) {
        let Some(scheduler) = &mut self.scheduler else {
            return;
        };
        let before = self.optimizer.lrs();
        let mut lrs = before.clone();
        scheduler.step(event, &mut lrs);
        if lrs == before {
            return;
        }
        if let (Event::Epoch { .. }, [from, ..], [to, ..]) = (event, &before[..], &lrs[..]) {
            tracing::info!(from, to, "Learning rate {from:.3e} -> {to:.3e}");
        }
        self.optimizer.set_lrs(&lrs);
    }

    /// Forward and backward of a batch: its loss, its logits and its gradients.
    ///
    /// `part` counts the batches of one step from 0.
    pub(crate) fn forward_backward(&self, batch: &Batch, step: usize, part: usize) -> Result<(f64, Tensor, GradStore)> {
        let mode = Mode::Train {
            seed: self.config.seed,
            // Another dropout for each batch, also where several make a step.
            step: self.progress.step * self.accumulation as u64 + part as u64,
        };
        let logits = {
            let _span = tracing::debug_span!("forward").entered();
            self.model.forward(&batch.images, mode)?
        };
        let loss_tensor = self.loss.forward(&logits, Targets::of(batch))?;
        let loss = scalar(&loss_tensor)?;
        if !loss.is_finite() {
            return Err(Error::NonFiniteLoss {
                loss,
                epoch: self.progress.epoch + 1,
                step,
                lr: self.optimizer.lr(),
                samples: batch.indices.iter().take(8).copied().collect(),
            });
        }
        let _span = tracing::debug_span!("backward").entered();
        Ok((loss, logits, tape::backward(&loss_tensor)?))
    }

    /// The optimiser's step on the mean of the gradients, and all that follows a step.
    fn optimizer_step(&mut self, mut grads: GradStore, params: &NamedVars) -> Result<()> {
        let _span = tracing::debug_span!("optimizer").entered();
        self.grad_clip.apply(&mut grads, params)?;
        self.optimizer.step(&grads)?;
        self.progress.step += 1;
        if let Some(average) = &mut self.average {
            average.on_step(self.model.params())?;
        }
        self.schedule(Event::Step);
        Ok(())
    }

    /// One pass over the training data. Returns the loss averaged over batches, the accuracy, and the timing.
    ///
    /// # Errors
    /// As [`Trainer::fit`].
    pub fn train_one_epoch(
        &mut self,
        loader: &dyn BatchSource,
        callbacks: &mut [&mut dyn Callback],
    ) -> Result<(f64, f64, EpochTiming)> {
        let epoch = self.progress.epoch + 1;
        let num_steps = loader.num_batches();
        for callback in callbacks.iter_mut() {
            callback.on_epoch_start(epoch, num_steps, loader.num_samples())?;
        }
        let started = Instant::now();
        let mut epoch_loss = Mean::default();
        let mut recent_loss = Mean::default();
        let mut accuracy = Accuracy::default();
        let mut batches = loader.epoch(self.progress.epoch as u64)?;
        let mut step = 0;
        let params = self.optimizer.params();
        let mut accumulator = Accumulator::default();
        for batch in batches.by_ref() {
            let batch = batch?;
            step += 1;
            let span = tracing::debug_span!("step", step);
            let _guard = span.enter();
            let (loss, logits, grads) = self.forward_backward(&batch, step, accumulator.batches())?;
            let targets = Targets::of(&batch);
            let last = accumulator.batches() + 1 == self.accumulation;
            accumulator.add(grads, self.loss.divisor(targets)?, &params, !last)?;
            if last && let Some(grads) = accumulator.take() {
                self.optimizer_step(grads, &params)?;
            }
            let targets = targets.classes()?;
            accuracy.add(&argmax(&logits.detach())?, &targets);
            epoch_loss.add(loss);
            recent_loss.add(loss);
            self.progress.samples_seen += targets.len() as u64;

            if self.config.log_every > 0 && step % self.config.log_every == 0 {
                let (epochs, recent) = (self.config.epochs, recent_loss.value());
                let percent = 100.0 * accuracy.value();
                tracing::info!(
                    epoch,
                    step,
                    loss = recent,
                    accuracy = accuracy.value(),
                    "Epoch [{epoch}/{epochs}], Step [{step}/{num_steps}], Loss: {recent:.4}, Acc: {percent:.2}%"
                );
                recent_loss = Mean::default();
            }
            let report = StepReport {
                epoch,
                step,
                num_steps,
                batch_size: targets.len(),
                loss,
                running_accuracy: accuracy.value(),
            };
            for callback in callbacks.iter_mut() {
                callback.on_step_end(&report)?;
            }
        }
        // Too few batches were left for a whole step; how many is not known before, as bad samples are dropped.
        if let Some(grads) = accumulator.take() {
            self.optimizer_step(grads, &params)?;
        }
        let train = started.elapsed();
        let timing = EpochTiming {
            train,
            load_wait: batches.wait(),
            images_per_second: accuracy.total() as f64 / train.as_secs_f64().max(f64::MIN_POSITIVE),
            ..EpochTiming::default()
        };
        Ok((epoch_loss.value(), accuracy.value(), timing))
    }
}
