//! The ops of a section on a GPU against the same ops on the CPU, which golden files prove against PyTorch.
//!
//! Without a device every test says that it was skipped; `KESTREL_REQUIRE_CUDA=1` makes that a failure.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod losses;
mod ops;
mod recordings;
mod repeats;
mod support;
mod updates;

type Result<T> = kestrel_kernels::Result<T>;
