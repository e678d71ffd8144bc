//! The binary as a person uses it: its commands on small data, and every bad input.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod bad_input;
mod bad_samples;
mod cpu_features;
mod doctor;
mod evaluate;
mod guide;
mod inspect;
mod interrupted;
mod manners;
mod methods;
mod models;
mod pictures;
mod precision;
mod predict;
mod pretrained;
mod report;
mod run_files;
mod serve;
#[path = "../../../kestrel-data/tests/it/server.rs"]
#[expect(dead_code, reason = "its users elsewhere need more of it")]
mod server;
mod serving;
mod train;
mod transfer;
mod weight_files;
