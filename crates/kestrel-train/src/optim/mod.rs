//! Optimisers, one a file.

mod adam;

pub use adam::Adam;

use candle_core::backprop::GradStore;
use kestrel_models::StateDict;

use crate::Result;

/// Moves parameters by their gradients.
///
/// Its whole state can be read and set, so that a resumed run continues exactly.
pub trait Optimizer: Send {
    /// One update. A parameter that has no gradient is left alone, as in PyTorch.
    ///
    /// # Errors
    /// Where a device fails.
    fn step(&mut self, grads: &GradStore) -> Result<()>;

    /// The learning rate.
    fn lr(&self) -> f64;

    /// Sets the learning rate from the next step on.
    fn set_lr(&mut self, lr: f64);

    /// The state by name, `<kind>.<parameter>`, and `step`.
    ///
    /// # Errors
    /// Where a device cannot copy.
    fn state_dict(&self) -> Result<StateDict>;

    /// Sets the whole state, or nothing.
    ///
    /// # Errors
    /// [`crate::Error::CheckpointMismatch`] where a tensor is missing or has another shape.
    fn load_state_dict(&mut self, state: &StateDict) -> Result<()>;
}
