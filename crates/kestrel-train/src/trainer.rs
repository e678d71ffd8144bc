//! The training loop.

use std::time::Instant;

use candle_core::Device;
use kestrel_data::loader::DataLoader;
use kestrel_kernels::{cross_entropy, tape};
use kestrel_models::{Mode, Model};
use serde::{Deserialize, Serialize};

use crate::callback::EpochTiming;
use crate::evaluate::scalar;
use crate::lr_scheduler::LrScheduler;
use crate::metrics::{Accuracy, Mean, argmax};
use crate::optim::Optimizer;
use crate::{Callback, Control, EpochReport, Error, Result, StepReport, evaluate};

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
    config: TrainerConfig,
    progress: Progress,
}

impl Trainer {
    /// A run at its start.
    pub fn new(
        model: Box<dyn Model>,
        optimizer: Box<dyn Optimizer>,
        scheduler: Option<Box<dyn LrScheduler>>,
        config: TrainerConfig,
    ) -> Self {
        Self {
            model,
            optimizer,
            scheduler,
            config,
            progress: Progress::default(),
        }
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

    pub(crate) fn set_progress(&mut self, progress: Progress) {
        self.progress = progress;
    }

    /// Trains until all epochs are done or a callback stops the run.
    ///
    /// Each epoch trains on every batch of `train`, evaluates on `val`, and steps the scheduler on the validation
    /// loss averaged over batches. The scheduler's new rate holds from the next epoch on.
    ///
    /// # Errors
    /// [`Error::NonFiniteLoss`], [`Error::EmptySplit`], or what the loader, the model or a callback gives.
    pub fn fit(&mut self, train: &DataLoader, val: &DataLoader, callbacks: &mut [&mut dyn Callback]) -> Result<()> {
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
            let validation = evaluate(self.model.as_ref(), val, &mut |done, total| {
                callbacks
                    .iter_mut()
                    .try_for_each(|c| c.on_validation_batch(done, total))
            })?;
            timing.validate = started.elapsed();
            let val_accuracy = validation.accuracy();
            let improved = self.progress.best_accuracy.is_none_or(|best| val_accuracy > best);
            if improved {
                self.progress.best_accuracy = Some(val_accuracy);
                self.progress.best_epoch = Some(epoch);
            }
            if let Some(scheduler) = &mut self.scheduler {
                let next = scheduler.step(validation.loss, lr);
                if next != lr {
                    tracing::info!(epoch, from = lr, to = next, "Learning rate {lr:.3e} -> {next:.3e}");
                }
                self.optimizer.set_lr(next);
            }
            let report = EpochReport {
                epoch,
                train_loss,
                train_accuracy,
                val_loss: validation.loss,
                val_accuracy,
                lr,
                improved,
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

    /// One pass over the training data. Returns the loss averaged over batches, the accuracy, and the timing.
    ///
    /// # Errors
    /// As [`Trainer::fit`].
    pub fn train_one_epoch(
        &mut self,
        loader: &DataLoader,
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
        let mut batches = loader.epoch(self.progress.epoch as u64);
        let mut step = 0;
        for batch in batches.by_ref() {
            let batch = batch?;
            step += 1;
            let span = tracing::debug_span!("step", step);
            let _guard = span.enter();
            let mode = Mode::Train {
                seed: self.config.seed,
                step: self.progress.step,
            };
            let logits = {
                let _span = tracing::debug_span!("forward").entered();
                self.model.forward(&batch.images, mode)?
            };
            let loss_tensor = cross_entropy(&logits, &batch.targets)?;
            let loss = scalar(&loss_tensor)?;
            if !loss.is_finite() {
                let lr = self.optimizer.lr();
                let samples = batch.indices.iter().take(8).copied().collect();
                return Err(Error::NonFiniteLoss {
                    loss,
                    epoch,
                    step,
                    lr,
                    samples,
                });
            }
            let grads = {
                let _span = tracing::debug_span!("backward").entered();
                tape::backward(&loss_tensor)?
            };
            {
                let _span = tracing::debug_span!("optimizer").entered();
                self.optimizer.step(&grads)?;
            }
            let targets = batch.targets.to_device(&Device::Cpu)?.to_vec1::<u32>()?;
            accuracy.add(&argmax(&logits.detach())?, &targets);
            epoch_loss.add(loss);
            recent_loss.add(loss);
            self.progress.step += 1;
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
