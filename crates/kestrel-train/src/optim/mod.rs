//! Optimisers, one a file.
//!
//! [`Adam`], [`Sgd`], [`RmsProp`], [`Lion`] and [`Muon`] treat each parameter by itself: each is an [`UpdateRule`] run by
//! [`PerParameter`], over [`ParamGroup`]s with options of their own. [`Combined`] gives some parameters to one optimiser
//! and some to another, [`Lookahead`] wraps any.

mod adam;
mod combined;
mod lion;
mod lookahead;
mod muon;
mod param_group;
mod per_parameter;
mod rmsprop;
mod sgd;

pub use adam::{Adam, AdamRule};
pub use combined::Combined;
pub use lion::{Lion, LionRule};
pub use lookahead::{AlphaDecay, Lookahead, LookaheadConfig};
pub use muon::{Muon, MuonRule};
pub use param_group::{NamedVars, ParamGroup, no_decay_on_biases_and_norms, norm_biases};
pub use per_parameter::{PerParameter, Update, UpdateRule};
pub use rmsprop::{RmsProp, RmsPropRule};
pub use sgd::{Sgd, SgdRule};

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use kestrel_kernels::update::is_shut;
use kestrel_models::StateDict;

use crate::{Error, Result};

/// Moves parameters by their gradients.
///
/// Its whole state can be read and set, so that a resumed run continues exactly.
pub trait Optimizer: Send {
    /// One update. A parameter that has no gradient is left alone, as in PyTorch.
    ///
    /// # Errors
    /// Where a device fails.
    fn step(&mut self, grads: &GradStore) -> Result<()>;

    /// [`step`](Self::step) where `gate`, `[]` of `f32`, is 1; where it is 0, parameters and state stay exactly as they are.
    ///
    /// On a device other than the CPU the gate need not be read: then only the state's tensors stay, and the count of steps goes
    /// on. A run whose gate is shut is to end.
    ///
    /// # Errors
    /// Those of [`step`](Self::step).
    fn step_gated(&mut self, grads: &GradStore, gate: &Tensor) -> Result<()> {
        if is_shut(gate)? { Ok(()) } else { self.step(grads) }
    }

    /// The parameters that it moves, by name, group by group.
    fn params(&self) -> NamedVars;

    /// The learning rate of each parameter group; at least one.
    fn lrs(&self) -> Vec<f64>;

    /// Sets each group's learning rate from the next step on; a group beyond the slice keeps its own.
    fn set_lrs(&mut self, lrs: &[f64]);

    /// The learning rate of the first group.
    fn lr(&self) -> f64 {
        self.lrs().first().copied().unwrap_or_default()
    }

    /// Sets the learning rate of every group.
    fn set_lr(&mut self, lr: f64) {
        self.set_lrs(&vec![lr; self.lrs().len()]);
    }

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

/// What an option may be; none of these holds NaN.
#[derive(Clone, Copy)]
pub(crate) enum Range {
    /// At least 0.
    NotNegative,
    /// In `[0, 1)`.
    BelowOne,
    /// In `[0, 1]`.
    Unit,
}

/// Errors unless each option lies in its range.
pub(crate) fn check(options: &[(&'static str, f64, Range)]) -> Result<()> {
    for &(field, value, range) in options {
        let (holds, expected) = match range {
            Range::NotNegative => (value >= 0.0 && value.is_finite(), "a finite number, 0 or more"),
            Range::BelowOne => ((0.0..1.0).contains(&value), "in [0, 1)"),
            Range::Unit => ((0.0..=1.0).contains(&value), "in [0, 1]"),
        };
        if !holds {
            return Err(Error::InvalidConfig {
                field,
                expected,
                got: value.to_string(),
            });
        }
    }
    Ok(())
}
