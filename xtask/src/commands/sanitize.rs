//! `cargo xtask sanitize`: the kernels' tests under AddressSanitizer, or under valgrind. Not part of the CI.
//!
//! Both find a read or write outside of a block of memory, in every instruction set that they know: the sanitizer in
//! AVX-512 too, valgrind in AVX2. The sanitizer needs a nightly toolchain, valgrind none.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};

use crate::{cargo, nightly, process};

/// The sanitizer's target: its runtime comes with the standard library of this one.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Cargo starts the tests through it. Leaks are not looked for: rayon's memory is in use to the end.
const VALGRIND: &str = "target.'cfg(all())'.runner = ['valgrind', '--quiet', '--leak-check=no', '--error-exitcode=1']";

/// Runs the tests whose names contain one of `args`, or all; a leading `--valgrind` picks valgrind.
pub(crate) fn run(args: &[OsString]) -> Result<ExitCode> {
    match args.split_first() {
        Some((first, rest)) if first == "--valgrind" => valgrind(rest),
        _ => address(args),
    }
}

fn address(tests: &[OsString]) -> Result<ExitCode> {
    ensure!(
        cfg!(all(target_arch = "x86_64", target_os = "linux")),
        "the sanitizer is set up for {TARGET} alone; try --valgrind"
    );
    let mut probe = nightly::tool("rustc");
    probe.arg("--version");
    process::require(
        probe,
        "the nightly toolchain",
        "rustup toolchain install nightly; or use cargo xtask sanitize --valgrind",
    )?;
    let mut command = nightly::cargo(&[
        "test",
        "--release",
        "--target",
        TARGET,
        "--target-dir",
        "target/sanitize",
    ]);
    command
        .args(["--package", "kestrel-kernels", "--lib", "--test", "it", "--"])
        .args(tests)
        // With assertions the standard library checks what its unsafe functions ask for.
        .env("RUSTFLAGS", "-Zsanitizer=address -Cdebug-assertions=on --cfg sanitized")
        // A test leaks on purpose, and rayon's memory is in use to the end.
        .env("ASAN_OPTIONS", "detect_leaks=0");
    process::run("sanitize", command)
}

fn valgrind(tests: &[OsString]) -> Result<ExitCode> {
    let mut probe = Command::new("valgrind");
    probe.arg("--version");
    process::require(probe, "valgrind", "apt-get install valgrind")?;
    let mut command = cargo::release("test", None);
    command
        .args(["--package", "kestrel-kernels", "--lib", "--config", VALGRIND, "--"])
        .args(tests);
    process::run("sanitize", command)
}
