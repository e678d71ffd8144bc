//! `cargo xtask`: the front door. Owns the developers' commands and hands every other command to the trainer.
//!
//! Nothing here knows candle, so the first `cargo xtask` compiles in seconds.

mod cargo;
mod commands;
mod cuda_toolkit;
#[cfg(test)]
mod layering;
mod nightly;
mod process;
#[cfg(test)]
mod tidy;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
Usage: cargo xtask [--features FEATURES] COMMAND [ARGUMENTS]

The developers' commands:
  test [ARGUMENTS]        cargo test --release --workspace
  ci                      formatting, clippy, tests, docs, licences, typos, CUDA where it can be built: what the CI runs
  golden --python PYTHON  make the golden test data again with PyTorch
  fuzz [TARGET] [--minutes M] [--seed N] [--coverage]
                          kestrel-data's readers on mutated inputs, ten minutes a target; with --coverage by cargo-fuzz (nightly)
  soak [--minutes M] [--seed N] [--precision P]
                          a small run, ended at random instants and gone on with: must equal the straight run
  miri [TESTS]            the kernels' small tests under Miri (nightly)
  sanitize [TESTS]        the kernels' tests under AddressSanitizer (nightly); with --valgrind first, under valgrind
  cuda-toolkit DIR [--compute-cap N] [--python PYTHON]
                          what --features cuda needs to build, on a machine without a GPU; prints the environment to set
  test-cuda [-p CRATE]... [FILTER]... [--emulated | --no-run --out DIR [--trainer]]
                          the tests that need a GPU, with the features cuda,cudnn unless told; with --emulated, on one that
                          the CPU stands in for; with --out, as a folder for a machine that has one, and no Rust

Every other command is the trainer's: it is built in release mode and started in the working directory.
  cargo xtask --features cuda train --help
  cargo xtask help        all of the trainer's commands

Options:
  --features FEATURES     cargo features of the build, such as cuda (default: KESTREL_FEATURES)
  -h, --help              this text
";

fn main() -> ExitCode {
    dispatch(env::args_os().skip(1).collect()).unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn dispatch(args: Vec<OsString>) -> Result<ExitCode> {
    let (features, args) = split_features(args)?;
    let features = features
        .or_else(|| env::var_os("KESTREL_FEATURES"))
        .filter(|f| !f.is_empty());
    let features = features.as_deref();
    let Some((command, rest)) = args.split_first() else {
        eprint!("{HELP}");
        return Ok(ExitCode::from(2));
    };
    match command.to_str() {
        Some("-h" | "--help") => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        Some("test") => commands::test::run(features, rest),
        Some("ci") => commands::ci::run(features, rest),
        Some("cuda-toolkit") => commands::cuda_toolkit::run(rest),
        Some("fuzz") => commands::fuzz::run(rest),
        Some("golden") => commands::golden::run(rest),
        Some("miri") => commands::miri::run(rest),
        Some("soak") => commands::soak::run(features, rest),
        Some("sanitize") => commands::sanitize::run(rest),
        Some("test-cuda") => commands::test_cuda::run(features, rest),
        _ => commands::trainer::run(features, &args),
    }
}

/// Takes a leading `--features X` or `--features=X` off; what follows the command belongs to the command.
fn split_features(mut args: Vec<OsString>) -> Result<(Option<OsString>, Vec<OsString>)> {
    let Some(first) = args.first() else {
        return Ok((None, args));
    };
    if first == "--features" {
        if args.len() < 2 {
            bail!("--features needs a value, such as cuda");
        }
        let value = args.remove(1);
        args.remove(0);
        return Ok((Some(value), args));
    }
    let Some(value) = first.to_str().and_then(|first| first.strip_prefix("--features=")) else {
        return Ok((None, args));
    };
    let value = OsString::from(value);
    args.remove(0);
    Ok((Some(value), args))
}

#[cfg(test)]
mod tests;
