//! The binary as a person uses it: its commands on small data, and every bad input.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod bad_input;
mod bad_samples;
mod cpu_features;
mod interrupted;
mod methods;
mod pictures;
mod predict;
mod report;
mod run_files;
mod train;
