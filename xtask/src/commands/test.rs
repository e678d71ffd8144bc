//! `cargo xtask test`: all tests of the workspace, in release mode.

use std::ffi::{OsStr, OsString};
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{cargo, process};

/// Becomes `cargo test --release --workspace ARGS`.
pub(crate) fn run(features: Option<&OsStr>, args: &[OsString]) -> Result<ExitCode> {
    let mut command = command(features);
    command.args(args);
    process::replace(command)
}

/// The test command that a person and the CI share.
pub(crate) fn command(features: Option<&OsStr>) -> Command {
    let mut command = cargo::release("test", features);
    command.arg("--workspace");
    command
}
