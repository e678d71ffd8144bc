//! Cargo as a child process: which binary, which workspace, which profile.
//!
//! Everything is built in release mode. Trainer and tests then share every dependency, and clippy and rustdoc share
//! the build scripts and procedural macros with them.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;

/// The repository's root. What cargo says at run time wins: two checkouts that share a target directory share the
/// binary, and the path compiled into it may be the other one's.
pub(crate) fn root() -> PathBuf {
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let manifest_dir = PathBuf::from(manifest_dir);
    manifest_dir.parent().unwrap_or(&manifest_dir).to_path_buf()
}

/// The folder of what cargo builds.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that started this process, or the one on the path.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

/// `cargo SUBCOMMAND` on this workspace, whatever the working directory is.
pub(crate) fn workspace(subcommand: &str) -> Command {
    let mut command = cargo();
    command
        .arg(subcommand)
        .arg("--manifest-path")
        .arg(root().join("Cargo.toml"));
    command
}

/// [`workspace`] for subcommands that compile: the release profile, and the features if there are any.
pub(crate) fn release(subcommand: &str, features: Option<&OsStr>) -> Command {
    let mut command = workspace(subcommand);
    command.arg("--release");
    if let Some(features) = features {
        command.arg("--features").arg(features);
    }
    command
}
