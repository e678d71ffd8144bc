//! `cargo xtask miri`: the kernels' unit tests under Miri, which finds undefined behaviour where it happens. Not part of the CI.
//!
//! Miri interprets, so only the plain-Rust path runs, and only tests of small sizes: it runs those modules whose `unsafe`
//! is ours alone. A test that needs the `gemm` crate asks the processor by assembly, which Miri does not know.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::{nightly, process};

/// The modules of `kestrel-kernels` that Miri can run, and tests made for it of modules whose others are too large.
const MODULES: &[&str] = &[
    "memory::",
    "simd::",
    "conv2d::direct::",
    "conv2d::winograd::",
    "channels_last::batch_norm::pass::",
    "channels_last::max_pool2d::tests::few_pixels",
    "gelu::tests::few_elements",
];

/// The number of cores is the host's; crossbeam's queues, which rayon uses, make pointers of integers; borrows are judged by
/// the newer of Miri's two models; rayon's threads never end.
const FLAGS: &str = "-Zmiri-disable-isolation -Zmiri-permissive-provenance -Zmiri-tree-borrows -Zmiri-ignore-leaks";

/// Runs Miri on [`MODULES`], or on the tests whose names contain one of `args`.
pub(crate) fn run(args: &[OsString]) -> Result<ExitCode> {
    process::require(
        nightly::cargo(&["miri", "--version"]),
        "Miri",
        "rustup toolchain install nightly --component miri,rust-src",
    )?;
    let mut command = nightly::cargo(&["miri", "test", "--target-dir", "target/miri"]);
    command.args(["--package", "kestrel-kernels", "--lib", "--"]);
    if args.is_empty() {
        command.args(MODULES);
    } else {
        command.args(args);
    }
    command.env("MIRIFLAGS", FLAGS);
    process::run("miri", command)
}
