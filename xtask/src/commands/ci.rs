//! `cargo xtask ci`: every check that a change must pass, in order, until the first that fails.

use std::env;
use std::ffi::{OsStr, OsString};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;
use crate::cuda_toolkit::{self, Toolkit};

struct Step {
    name: &'static str,
    command: Command,
    /// What else must be installed, beside the Rust toolchain; without it the step is skipped.
    needs: Option<Tool>,
}

struct Tool {
    /// Succeeds where the tool is installed.
    probe: Command,
    package: &'static str,
}

/// Runs the steps and prints the wall time of each.
pub(crate) fn run(features: Option<&OsStr>, args: &[OsString]) -> Result<ExitCode> {
    ensure!(args.is_empty(), "ci takes no arguments");
    let start = Instant::now();
    for step in steps(features) {
        run_step(step)?;
    }
    match cuda(features) {
        Ok(step) => run_step(step)?,
        Err(reason) => eprintln!("ci: cuda: skipped, {reason:#}"),
    }
    eprintln!("ci: passed in {:.1} s", start.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

fn run_step(
    Step {
        name,
        mut command,
        needs,
    }: Step,
) -> Result<()> {
    if let Some(Tool { probe, package }) = needs
        && !succeeds(probe)
    {
        eprintln!("ci: {name}: skipped, {package} is not installed (cargo install {package} --locked)");
        return Ok(());
    }
    eprintln!("ci: {name}");
    let start = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("{name}: cannot start {command:?}"))?;
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        bail!("{name} failed after {seconds:.1} s ({status})");
    }
    eprintln!("ci: {name}: passed in {seconds:.1} s");
    Ok(())
}

fn steps(features: Option<&OsStr>) -> Vec<Step> {
    let mut fmt = cargo::workspace("fmt");
    fmt.args(["--all", "--check"]);
    let mut clippy = cargo::release("clippy", features);
    clippy.args(["--workspace", "--all-targets", "--", "-D", "warnings"]);
    let mut docs = cargo::release("doc", features);
    docs.args(["--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "-Dwarnings");
    // Advisories need a database from the network: the workflow on GitHub checks them.
    let mut deny = cargo::cargo();
    deny.args(["deny", "check", "licenses", "bans", "sources"])
        .current_dir(cargo::root());
    let mut typos = Command::new("typos");
    typos.current_dir(cargo::root());

    let mut deny_probe = cargo::cargo();
    deny_probe.args(["deny", "--version"]);
    let mut typos_probe = Command::new("typos");
    typos_probe.arg("--version");

    let step = |name, command| Step {
        name,
        command,
        needs: None,
    };
    vec![
        step("fmt", fmt),
        step("clippy", clippy),
        step("test", super::test::command(features)),
        step("docs", docs),
        Step {
            name: "deny",
            command: deny,
            needs: Some(Tool {
                probe: deny_probe,
                package: "cargo-deny",
            }),
        },
        Step {
            name: "typos",
            command: typos,
            needs: Some(Tool {
                probe: typos_probe,
                package: "typos-cli",
            }),
        },
    ]
}

/// Clippy on what is compiled for CUDA alone, and nvcc on the kernels. Needs no GPU, but a toolkit: the machine's own, or one
/// from pip. The tests are not run here, on the emulated GPU either (`test-cuda --emulated`): their build takes too long.
fn cuda(features: Option<&OsStr>) -> Result<Step> {
    let words = features.unwrap_or_default().to_string_lossy();
    ensure!(
        !words.split([',', ' ']).any(|feature| feature == "cuda"),
        "all was checked with the feature already"
    );
    let mut clippy = cargo::release("clippy", Some(OsStr::new("cuda,cudnn")));
    if cuda_toolkit::is_installed() {
        if env::var_os("CUDA_COMPUTE_CAP").is_none() {
            // Else it is the GPU's, and there may be none.
            clippy.env("CUDA_COMPUTE_CAP", cuda_toolkit::COMPUTE_CAP);
        }
    } else {
        let folder = cargo::target().join("cuda-toolkit");
        let toolkit = Toolkit::in_folder(&folder, OsStr::new("python3"))
            .context("no nvcc on the PATH, and none to be had from pip")?;
        clippy.envs(toolkit.environment(OsStr::new(cuda_toolkit::COMPUTE_CAP))?);
    }
    // Whether it compiles is asked, not how fast it is: the largest of candle's kernels take 40 s a file otherwise, and 12 so.
    // In a folder of its own, so that no build that is meant to run finds what was compiled like this.
    clippy.env("NVCC_APPEND_FLAGS", "-Xcicc -O0 -Xptxas -O0");
    clippy.env("CARGO_TARGET_DIR", cargo::target().join("cuda-check"));
    clippy.args(["--workspace", "--all-targets", "--", "-D", "warnings"]);
    Ok(Step {
        name: "cuda",
        command: clippy,
        needs: None,
    })
}

fn succeeds(mut probe: Command) -> bool {
    let probe = probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}
