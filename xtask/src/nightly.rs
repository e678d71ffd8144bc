//! The nightly toolchain as a child process, for the checks that stable Rust does not have. Not needed to build or to test.

use std::process::Command;

use crate::cargo;

const TOOLCHAIN: &str = "nightly";

/// `cargo SUBCOMMAND` of the nightly toolchain, in the root of the repository.
pub(crate) fn cargo(subcommand: &[&str]) -> Command {
    let mut command = tool("cargo");
    command.args(subcommand);
    command
}

/// A program of the nightly toolchain, in the root of the repository.
pub(crate) fn tool(name: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", TOOLCHAIN, name]).current_dir(cargo::root());
    // These were set by the cargo that started this process, and would lead back to its toolchain.
    for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(variable);
    }
    command
}
