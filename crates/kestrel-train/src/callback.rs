//! How a program listens to a run, and stops it, without touching the loop.
//!
//! Much of what a run does beside training is a callback: the [`Checkpointer`](crate::checkpoint::Checkpointer), the
//! [logs](crate::run_log), [early stopping](crate::early_stopping), the [time limit](crate::time_limit). Hooks are called in
//! the order of the callbacks; what is to be on the disk before a checkpoint says so stands before the checkpointer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, Trainer};

/// Whether the run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Control {
    /// Go on.
    Continue,
    /// End the run without an error, once the optimiser's step is made that is under way. It can be gone on with from there.
    Stop,
}

impl Control {
    /// Stop, if either says so.
    pub fn or(self, other: Self) -> Self {
        if self == Self::Stop { self } else { other }
    }
}

/// The training part of an epoch that begins, or is gone on with.
#[derive(Clone, Copy, Debug)]
pub struct EpochStart {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Batches in the epoch.
    pub num_steps: usize,
    /// Images in the epoch.
    pub num_samples: usize,
    /// Images of the epoch that were seen before the run was stopped and resumed; 0 otherwise.
    pub samples_done: u64,
}

/// A batch is trained on.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// The epoch, from 1.
    pub epoch: usize,
    /// The batch in the epoch, from 1.
    pub step: usize,
    /// Batches in the epoch.
    pub num_steps: usize,
    /// Images in this batch.
    pub batch_size: usize,
    /// This batch's loss; where numbers are not `settled`, that of a batch some steps before.
    pub loss: f64,
    /// Accuracy in `[0, 1]` since the epoch's start; of the batches that were read, where numbers are not `settled`.
    pub running_accuracy: f64,
    /// The learning rate of this batch's step.
    pub lr: f64,
    /// The Euclidean norm of all gradients together, before clipping, where this batch completed an optimiser's step; none
    /// where gradients are accumulated and more batches are to come, or the step was skipped. That of a step before, where
    /// numbers are not `settled`.
    pub grad_norm: Option<f64>,
    /// Whether this batch completed a step that was not made, because its scaled gradients overflowed `f16`; the run's state
    /// can be saved then too.
    pub skipped: bool,
    /// At each `log_every`th batch of the epoch: the loss averaged over the batches since the last such batch.
    pub mean_loss: Option<f64>,
    /// Whether all numbers up to this batch have been read, and are in the trainer's progress. Always so on the CPU. On a GPU
    /// to read is to wait for it: only every few steps, where there is a `mean_loss`, where a callback
    /// [wants them](Callback::wants_numbers), and at the epoch's end. The state can be saved only then.
    pub settled: bool,
}

impl StepReport {
    /// Whether this batch ended a step of the optimiser, made or skipped: only then can the run's state be saved, once its numbers
    /// are settled.
    pub fn ends_step(&self) -> bool {
        self.grad_norm.is_some() || self.skipped
    }
}

/// What an epoch came to. These numbers are the same in every run of a seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// The epoch, from 1.
    pub epoch: usize,
    /// The optimiser's steps made since the run's start.
    pub step: u64,
    /// Training loss, averaged over batches.
    #[serde(with = "crate::number")]
    pub train_loss: f64,
    /// Training accuracy in `[0, 1]`, as measured while the weights moved.
    pub train_accuracy: f64,
    /// Validation loss, averaged over batches; not a finite number where the weights give none.
    #[serde(with = "crate::number")]
    pub val_loss: f64,
    /// Validation accuracy in `[0, 1]`.
    pub val_accuracy: f64,
    /// The learning rate that the epoch began with.
    pub lr: f64,
    /// Whether the validation accuracy is the best so far.
    pub improved: bool,
    /// The share of validation images whose class is among the five likeliest, where there are more than five.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_top5: Option<f64>,
    /// The temperature at which the probabilities fit the validation images best; see [`crate::metrics::fit_temperature`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
}

/// Where an epoch's time went; of an epoch that was resumed, the part since then.
///
/// On a GPU, work is waited for where a number is read. Where numbers are read [later](crate::Trainer::with_deferred_reads), as
/// by default, the times of the passes are the host's for launching them; where each batch makes a step, `forward` is that of
/// both passes, and `backward` 0. The device's own time is waited for elsewhere in `train`. Where each step's numbers are read
/// in it, `forward` has the device's time of the step before in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct EpochTiming {
    /// The training part.
    pub train: Duration,
    /// The part of it in which the loop waited for the loader.
    pub load_wait: Duration,
    /// The part of it in the model's forward pass and the loss; of a GPU see above.
    pub forward: Duration,
    /// The part of it in the backward pass; on a GPU 0 where `forward` has both.
    pub backward: Duration,
    /// The part of it in the gradients' norm, the clipping, the optimiser and the average of the weights.
    pub optimizer: Duration,
    /// The validation part.
    pub validate: Duration,
    /// Training images seen.
    pub images: u64,
    /// Training images a second.
    pub images_per_second: f64,
}

/// Hooks that a run calls. Each has an empty default; an error ends the run.
pub trait Callback {
    /// [`Trainer::fit`] begins, of a new run or of one that goes on.
    ///
    /// # Errors
    /// Ends the run.
    fn on_fit_start(&mut self, _trainer: &Trainer) -> Result<Control> {
        Ok(Control::Continue)
    }

    /// The training part of an epoch begins.
    ///
    /// # Errors
    /// Ends the run.
    fn on_epoch_start(&mut self, _start: &EpochStart) -> Result<()> {
        Ok(())
    }

    /// Whether the next [`on_step_end`](Self::on_step_end) needs all numbers up to its batch, as one that saves the run does.
    /// Asked only where they are on a device still.
    fn wants_numbers(&self, _trainer: &Trainer) -> bool {
        false
    }

    /// A batch is trained on, and the trainer's progress holds it.
    ///
    /// # Errors
    /// Ends the run.
    fn on_step_end(&mut self, _trainer: &Trainer, _report: &StepReport) -> Result<Control> {
        Ok(Control::Continue)
    }

    /// `done` of `total` validation batches are through. Where the run is stopped here, it goes on with the whole validation.
    ///
    /// # Errors
    /// Ends the run.
    fn on_validation_batch(&mut self, _done: usize, _total: usize) -> Result<Control> {
        Ok(Control::Continue)
    }

    /// Training, validation and the scheduler's step of an epoch are done, and the trainer's progress holds them.
    ///
    /// # Errors
    /// Ends the run.
    fn on_epoch_end(&mut self, _trainer: &Trainer, _report: &EpochReport, _timing: &EpochTiming) -> Result<Control> {
        Ok(Control::Continue)
    }

    /// [`Trainer::fit`] ends: all epochs are done, or a callback has stopped it. Called also where another callback's has failed.
    ///
    /// # Errors
    /// The first is what the run ends with.
    fn on_fit_end(&mut self, _trainer: &Trainer) -> Result<()> {
        Ok(())
    }

    /// [`Trainer::fit`] ends with an error. The trainer's state may be that of half a step, and must not be saved.
    fn on_error(&mut self, _error: &Error) {}
}
