//! How a program listens to a run, and stops it, without touching the loop.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Result, Trainer};

/// Whether the run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Continue,
    /// End the run after this epoch's or step's work is done, without an error.
    Stop,
}

/// One optimiser step.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// The epoch, from 1.
    pub epoch: usize,
    /// The step in the epoch, from 1.
    pub step: usize,
    /// Steps in the epoch.
    pub num_steps: usize,
    /// Images in this step's batch.
    pub batch_size: usize,
    /// This batch's loss.
    pub loss: f64,
    /// Accuracy in `[0, 1]` since the epoch's start.
    pub running_accuracy: f64,
}

/// What an epoch came to. These numbers are the same in every run of a seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Training loss, averaged over batches.
    pub train_loss: f64,
    /// Training accuracy in `[0, 1]`, as measured while the weights moved.
    pub train_accuracy: f64,
    /// Validation loss, averaged over batches.
    pub val_loss: f64,
    /// Validation accuracy in `[0, 1]`.
    pub val_accuracy: f64,
    /// The learning rate that the epoch was trained with.
    pub lr: f64,
    /// Whether the validation accuracy is the best so far.
    pub improved: bool,
    /// The temperature at which the probabilities fit the validation images best; see [`crate::metrics::fit_temperature`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
}

/// Where an epoch's time went.
#[derive(Clone, Copy, Debug, Default)]
pub struct EpochTiming {
    /// The training part.
    pub train: Duration,
    /// The part of it in which the loop waited for the loader.
    pub load_wait: Duration,
    /// The validation part.
    pub validate: Duration,
    /// Training images a second.
    pub images_per_second: f64,
}

/// Hooks that a run calls. Each has an empty default; an error ends the run.
pub trait Callback {
    /// An epoch begins.
    ///
    /// # Errors
    /// Ends the run.
    fn on_epoch_start(&mut self, _epoch: usize, _num_steps: usize, _num_samples: usize) -> Result<()> {
        Ok(())
    }

    /// A step is done.
    ///
    /// # Errors
    /// Ends the run.
    fn on_step_end(&mut self, _report: &StepReport) -> Result<()> {
        Ok(())
    }

    /// `done` of `total` validation batches are through.
    ///
    /// # Errors
    /// Ends the run.
    fn on_validation_batch(&mut self, _done: usize, _total: usize) -> Result<()> {
        Ok(())
    }

    /// Training, validation and the scheduler's step of an epoch are done, and the trainer's progress holds them.
    ///
    /// # Errors
    /// Ends the run.
    fn on_epoch_end(&mut self, _trainer: &Trainer, _report: &EpochReport, _timing: &EpochTiming) -> Result<Control> {
        Ok(Control::Continue)
    }
}
