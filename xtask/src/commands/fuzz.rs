//! `cargo xtask fuzz`: feeds damaged files to the readers of `kestrel-data` until one panics, or the time is over.
//!
//! Not part of the CI, whose tests run the kept inputs (`fuzz/corpus`) once. By default inputs are seeded mutations, on stable
//! Rust; `--coverage` follows coverage under AddressSanitizer, by cargo-fuzz, which needs a nightly toolchain.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs, io};

use anyhow::{Context, Result, bail, ensure};

use crate::{cargo, nightly, process};

const USAGE: &str = "usage: cargo xtask fuzz [TARGET] [--minutes M] [--seed N] [--coverage]";

/// What was asked for.
#[derive(Debug, PartialEq)]
struct Plan {
    /// The targets, one after the other.
    targets: Vec<String>,
    /// Minutes for each.
    minutes: u64,
    /// Another seed, other inputs.
    seed: u64,
    coverage: bool,
}

/// Fuzzes the named target, or all of them in turn; ends at the first finding.
pub(crate) fn run(args: &[OsString]) -> Result<ExitCode> {
    let folder = cargo::root().join("fuzz");
    let known = targets(&folder).with_context(|| format!("cannot list the targets in {}", folder.display()))?;
    let plan = Plan::parse(args, &known)?;
    if plan.coverage {
        let mut probe = nightly::tool("cargo-fuzz");
        probe.arg("--version");
        process::require(
            probe,
            "cargo-fuzz on a nightly toolchain",
            "rustup toolchain install nightly, then cargo install cargo-fuzz",
        )?;
    } else {
        let mut build = cargo::release("build", None);
        build.args(["--workspace", "--example", "fuzz"]);
        let built = build.status().context("cannot start cargo")?;
        if !built.success() {
            return Ok(process::exit_code(built));
        }
    }
    for target in &plan.targets {
        let mut command = if plan.coverage {
            with_coverage(&folder, target, &plan)?
        } else {
            with_mutations(target, &plan)?
        };
        eprintln!("fuzz: {target}");
        let status = command
            .status()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        if !status.success() {
            eprintln!(
                "fuzz: {target} failed; a finding lies in {}",
                folder.join("artifacts").join(target).display()
            );
            return Ok(process::exit_code(status));
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Plan {
    fn parse(args: &[OsString], known: &[String]) -> Result<Self> {
        let mut plan = Self {
            targets: known.to_vec(),
            minutes: 10,
            seed: 0,
            coverage: false,
        };
        let mut args = args.iter().map(|arg| arg.to_string_lossy());
        let mut named = false;
        while let Some(arg) = args.next() {
            match arg.as_ref() {
                "--coverage" => plan.coverage = true,
                "--minutes" => plan.minutes = number("--minutes", args.next().as_deref(), 1)?,
                "--seed" => plan.seed = number("--seed", args.next().as_deref(), 0)?,
                target if known.iter().any(|name| name == target) => {
                    ensure!(!named, "{USAGE}; one TARGET, or none for all of them");
                    named = true;
                    plan.targets = vec![target.to_owned()];
                }
                other => bail!("{USAGE}; {other:?} is none of the targets {}", known.join(", ")),
            }
        }
        Ok(plan)
    }
}

fn number(name: &str, value: Option<&str>, least: u64) -> Result<u64> {
    let value = value.unwrap_or_default();
    let number = value.parse().ok().filter(|&number| number >= least);
    number.with_context(|| format!("{name} is {value:?}, expected a whole number of at least {least}"))
}

/// The names of the programs in `fuzz_targets`.
fn targets(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.join("fuzz_targets"))? {
        if let Some(name) = entry?.path().file_stem() {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The driver that was built beside xtask.
fn with_mutations(target: &str, plan: &Plan) -> Result<Command> {
    let xtask = env::current_exe().context("cannot tell where xtask lies")?;
    let driver = xtask
        .with_file_name("examples")
        .join(format!("fuzz{}", env::consts::EXE_SUFFIX));
    let mut command = Command::new(driver);
    command.args([
        target,
        "--minutes",
        &plan.minutes.to_string(),
        "--seed",
        &plan.seed.to_string(),
    ]);
    Ok(command)
}

/// libFuzzer; what it finds to be new goes to a folder of its own, so that the kept inputs stay few.
fn with_coverage(folder: &Path, target: &str, plan: &Plan) -> Result<Command> {
    let fresh = folder.join("target/corpus").join(target);
    fs::create_dir_all(&fresh).with_context(|| format!("cannot create {}", fresh.display()))?;
    let mut command = nightly::cargo(&["fuzz", "run", "--fuzz-dir"]);
    command
        .arg(folder)
        .arg(target)
        .arg(&fresh)
        .arg(folder.join("corpus").join(target));
    command.args([
        "--",
        &format!("-max_total_time={}", 60 * plan.minutes),
        // libFuzzer takes 0 for a seed of its own choice.
        &format!("-seed={}", plan.seed.wrapping_add(1)),
        "-timeout=20",
        "-max_len=65536",
    ]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Plan> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        Plan::parse(&args, &["archive".to_owned(), "idx".to_owned()])
    }

    #[test]
    fn all_targets_for_ten_minutes_each_unless_told() {
        let plan = parse(&[]).unwrap();
        assert_eq!((plan.targets.len(), plan.minutes, plan.coverage), (2, 10, false));
        let plan = parse(&["idx", "--minutes", "3", "--seed", "5", "--coverage"]).unwrap();
        assert_eq!(plan.seed, 5);
        assert_eq!(
            (&plan.targets[..], plan.minutes, plan.coverage),
            (&["idx".to_owned()][..], 3, true)
        );
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (args, word) in [
            (&["jpeg"][..], "archive, idx"),
            (&["idx", "archive"], "one TARGET"),
            (&["--minutes"], "--minutes"),
            (&["--minutes", "0"], "at least 1"),
            (&["--minutes", "x"], "\"x\""),
            (&["--seed", "-1"], "\"-1\""),
        ] {
            let error = parse(args).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn every_target_has_kept_inputs() {
        let folder = cargo::root().join("fuzz");
        let names = targets(&folder).unwrap();
        assert_eq!(names, ["archive", "cifar_binary", "decode_image", "idx"]);
        for name in names {
            assert!(
                folder.join("corpus").join(&name).read_dir().unwrap().next().is_some(),
                "{name}"
            );
        }
    }
}
