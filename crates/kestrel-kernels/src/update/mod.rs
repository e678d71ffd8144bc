//! One step of an optimiser on one parameter, in place; the state is the caller's.

mod adam;
mod sgd;

pub use adam::{AdamConfig, adam_step};
pub use sgd::{SgdConfig, sgd_step};
