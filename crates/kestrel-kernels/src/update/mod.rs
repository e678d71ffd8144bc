//! One step of an optimiser on one parameter, in place; the state is the caller's.

mod adam;

pub use adam::{AdamConfig, adam_step};
