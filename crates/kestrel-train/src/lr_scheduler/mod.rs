//! Learning-rate schedulers, one a file.
//!
//! A schedule that follows a formula ([`StepLr`], [`MultiStepLr`], [`CosineAnnealingLr`], [`CosineAnnealingWarmRestarts`],
//! [`OneCycleLr`]) is a [`Schedule`], which [`Scheduled`] counts by steps or by epochs. [`ReduceLROnPlateau`] follows the
//! validation loss. [`LinearWarmup`] comes before any.

mod cosine;
mod one_cycle;
mod reduce_on_plateau;
mod scheduled;
mod step_lr;
mod warmup;

pub use cosine::{CosineAnnealingLr, CosineAnnealingWarmRestarts};
pub use one_cycle::{AnnealStrategy, OneCycleLr};
pub use reduce_on_plateau::{PlateauMode, ReduceLROnPlateau, ReduceLROnPlateauConfig, ThresholdMode};
pub use scheduled::{Schedule, Scheduled};
pub use step_lr::{MultiStepLr, StepLr};
pub use warmup::{LinearWarmup, LinearWarmupConfig};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What a scheduler is told of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// The optimiser has made a step.
    Step,
    /// An epoch is done, validation included; it comes after the event of its last step.
    Epoch {
        /// Loss, averaged over the validation batches.
        val_loss: f64,
    },
}

/// Which events a schedule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interval {
    /// Each step of the optimiser.
    Step,
    /// Each epoch.
    Epoch,
}

impl Interval {
    fn counts(self, event: Event) -> bool {
        matches!(
            (self, event),
            (Interval::Step, Event::Step) | (Interval::Epoch, Event::Epoch { .. })
        )
    }
}

/// Decides the learning rates of an optimiser's parameter groups.
pub trait LrScheduler: Send {
    /// Sets the rates before the first step, from those that the optimiser was made with.
    fn start(&mut self, _lrs: &mut [f64]) {}

    /// Sets the rates that hold after an event, from those before it.
    fn step(&mut self, event: Event, lrs: &mut [f64]);

    /// The state as JSON.
    ///
    /// # Errors
    /// Where the state has no JSON form.
    fn state(&self) -> Result<serde_json::Value>;

    /// Sets the state from what [`LrScheduler::state`] gave.
    ///
    /// # Errors
    /// [`crate::Error::CheckpointMismatch`] where it is another scheduler's.
    fn load_state(&mut self, state: &serde_json::Value) -> Result<()>;
}

fn to_state(state: &impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(state).map_err(|e| Error::CheckpointMismatch { reason: e.to_string() })
}

fn from_state<S: for<'de> Deserialize<'de>>(state: &serde_json::Value) -> Result<S> {
    S::deserialize(state).map_err(|e| Error::CheckpointMismatch {
        reason: format!("the scheduler's state: {e}"),
    })
}

fn invalid(field: &'static str, expected: &'static str, got: &dyn ToString) -> Error {
    Error::InvalidConfig {
        field,
        expected,
        got: got.to_string(),
    }
}
