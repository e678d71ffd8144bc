//! Integration tests of `kestrel-train`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod accumulation;
mod calibration;
#[cfg(feature = "cuda")]
mod cuda;
mod deferred_reads;
mod endings;
mod faults;
mod features;
#[path = "../../../kestrel-models/tests/it/formula.rs"]
#[expect(dead_code, reason = "its users elsewhere need more of it")]
mod formula;
mod golden;
mod grad_cam;
mod losses;
mod lr_finder;
mod lr_schedulers;
#[path = "../../../kestrel-kernels/tests/it/manifest_dir.rs"]
mod manifest_dir;
mod mid_epoch;
mod optimizers;
mod precision;
mod resume;
mod toy_run;
