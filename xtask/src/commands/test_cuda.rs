//! `cargo xtask test-cuda`: the tests that need a GPU, run here, on an emulated one, or gathered into a folder for a machine
//! that has one.
//!
//! By convention such a test is under `#[cfg(feature = "cuda")]` and has `cuda` in its path. Without a device it passes and
//! says so; where `KESTREL_REQUIRE_CUDA` is set it fails.

mod bundle;
mod emulated;
mod executable;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use crate::{cargo, process};

const USAGE: &str = "usage: cargo xtask [--features FEATURES] test-cuda [-p CRATE]... [FILTER]... \
                     [--emulated | --no-run --out DIR [--trainer]]";

/// The features unless told: those that `train` on a GPU is built with. `cuda` alone has convolutions of candle's ops.
const FEATURES: &str = "cuda,cudnn";

/// The crates that may have such tests.
const CRATES: &[&str] = &["kestrel-kernels", "kestrel-data", "kestrel-models", "kestrel-train"];

/// What is in the path of a test that needs a GPU.
const FILTER: &str = "cuda";

/// What was asked for.
#[derive(Debug, PartialEq)]
struct Plan {
    crates: Vec<OsString>,
    filters: Vec<OsString>,
    /// The folder to gather the tests in, instead of running them.
    out: Option<PathBuf>,
    /// Whether the trainer goes there too.
    trainer: bool,
    /// Whether they run on the emulated GPU.
    emulated: bool,
}

/// Runs the tests, or writes them to a folder.
pub(crate) fn run(features: Option<&OsStr>, args: &[OsString]) -> Result<ExitCode> {
    let plan = Plan::parse(args)?;
    let features = features_or_all(features);
    let mut command = cargo::release("test", Some(features));
    for package in &plan.crates {
        command.arg("--package").arg(package);
    }
    // Unit tests and integration tests, but no documentation's.
    command.arg("--tests");
    if let Some(out) = &plan.out {
        return bundle::write(command, features, &plan, out);
    }
    if plan.emulated {
        return emulated::run(command, &plan);
    }
    command.args(["--", "--include-ignored"]).args(&plan.filters);
    process::replace(command)
}

fn features_or_all(asked: Option<&OsStr>) -> &OsStr {
    asked.unwrap_or(OsStr::new(FEATURES))
}

impl Plan {
    fn parse(args: &[OsString]) -> Result<Self> {
        let mut plan = Self {
            crates: Vec::new(),
            filters: Vec::new(),
            out: None,
            trainer: false,
            emulated: false,
        };
        let mut no_run = false;
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || {
                args.next()
                    .cloned()
                    .with_context(|| format!("{USAGE}; {} needs a value", arg.display()))
            };
            match arg.to_str() {
                Some("-p" | "--package") => plan.crates.push(value()?),
                Some("--out") => plan.out = Some(value()?.into()),
                Some("--no-run") => no_run = true,
                Some("--trainer") => plan.trainer = true,
                Some("--emulated") => plan.emulated = true,
                Some(option) if option.starts_with('-') => bail!("{USAGE}; {option:?} is no option of it"),
                _ => plan.filters.push(arg.clone()),
            }
        }
        ensure!(
            no_run == plan.out.is_some() && (no_run || !plan.trainer),
            "{USAGE}; --no-run and --out go together, and --trainer with them"
        );
        ensure!(!(plan.emulated && no_run), "{USAGE}; --emulated runs the tests here");
        if plan.crates.is_empty() {
            plan.crates = CRATES.iter().map(OsString::from).collect();
        }
        if plan.filters.is_empty() {
            plan.filters.push(FILTER.into());
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Plan> {
        Plan::parse(&args.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn all_crates_and_the_filter_unless_told() {
        let plan = parse(&[]).unwrap();
        assert_eq!((plan.crates.len(), plan.out), (CRATES.len(), None));
        assert_eq!(plan.filters, [FILTER]);
        let plan = parse(&["-p", "kestrel-kernels", "pool", "--no-run", "--out", "d", "--trainer"]).unwrap();
        assert_eq!(
            (plan.crates, plan.filters),
            (vec!["kestrel-kernels".into()], vec!["pool".into()])
        );
        assert_eq!((plan.out, plan.trainer, plan.emulated), (Some("d".into()), true, false));
        assert!(parse(&["--emulated", "pool"]).unwrap().emulated);
    }

    #[test]
    fn with_cudnn_unless_told() {
        assert_eq!(features_or_all(None), "cuda,cudnn");
        assert_eq!(features_or_all(Some(OsStr::new("cuda"))), "cuda");
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (args, word) in [
            (&["--no-run"][..], "go together"),
            (&["--out", "d"], "go together"),
            (&["--trainer"], "go together"),
            (&["--out"], "needs a value"),
            (&["--emulated", "--no-run", "--out", "d"], "here"),
            (&["--gpu"], "--gpu"),
        ] {
            let error = parse(args).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
