//! One step of an optimiser on one parameter, in place; the state is the caller's.

mod adam;
mod average;
mod check;
mod fused;
mod gate;
mod lion;
mod muon;
mod newton_schulz;
mod rmsprop;
mod sgd;

pub use adam::{AdamConfig, AdamSlot, adam_step, adam_step_all};
pub use average::{average_step, squared_norm, squared_norms};
pub use gate::{gated, is_shut};
pub use lion::{LionConfig, lion_step};
pub use muon::{AdjustLr, MuonConfig, muon_step};
pub use newton_schulz::newton_schulz;
pub use rmsprop::{RmsPropConfig, RmsPropState, rmsprop_step};
pub use sgd::{SgdConfig, SgdSlot, sgd_step, sgd_step_all};
