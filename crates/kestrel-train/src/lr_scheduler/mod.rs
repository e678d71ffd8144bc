//! Learning-rate schedulers, one a file.

mod reduce_on_plateau;

pub use reduce_on_plateau::{PlateauMode, ReduceLROnPlateau, ReduceLROnPlateauConfig, ThresholdMode};

use crate::Result;

/// Decides the learning rate after each epoch.
pub trait LrScheduler: Send {
    /// The learning rate for the next epoch, from this epoch's metric and the rate so far.
    fn step(&mut self, metric: f64, lr: f64) -> f64;

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
