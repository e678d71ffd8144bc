//! Integration tests of `kestrel-train`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod accumulation;
mod calibration;
mod faults;
mod golden;
mod losses;
mod lr_finder;
mod lr_schedulers;
mod mid_epoch;
mod optimizers;
mod resume;
