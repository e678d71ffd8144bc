//! `cargo xtask fuzz`: the readers of `kestrel-data` on inputs that nobody means well with. Not part of the CI, whose tests replay
//! the kept inputs.
//!
//! By default by seeded mutations on stable Rust, at full speed; with `--coverage` by `cargo fuzz`, which follows the branches
//! that an input takes and watches memory, but needs a nightly toolchain and a build of its own.

use std::env;
use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{cargo, nightly, process};

/// Runs the driver, or with `--coverage` first `cargo fuzz run`, with `args`.
pub(crate) fn run(args: &[OsString]) -> Result<ExitCode> {
    match args.split_first() {
        Some((first, args)) if first == "--coverage" => coverage(args),
        _ => mutations(args),
    }
}

fn mutations(args: &[OsString]) -> Result<ExitCode> {
    // All packages, so that the features are those of every other build, and nothing is built twice.
    let mut build = cargo::release("build", None);
    build.args(["--workspace", "--example", "fuzz"]);
    let status = build.status().context("cannot start cargo")?;
    if !status.success() {
        return Ok(process::exit_code(status));
    }
    let xtask = env::current_exe().context("cannot tell where xtask lies")?;
    let examples = xtask.with_file_name("examples");
    let mut command = Command::new(examples.join(format!("fuzz{}", env::consts::EXE_SUFFIX)));
    command.args(args);
    process::replace(command)
}

fn coverage(args: &[OsString]) -> Result<ExitCode> {
    process::require(
        nightly::cargo(&["fuzz", "--version"]),
        "cargo-fuzz on a nightly toolchain",
        "rustup toolchain install nightly && cargo install cargo-fuzz",
    )?;
    let mut command = nightly::cargo(&["fuzz", "run"]);
    command.args(args);
    process::run("fuzz", command)
}
