//! The binary as a person uses it: its commands on small data, and every bad input.

mod bad_input;
mod pictures;
mod train;
