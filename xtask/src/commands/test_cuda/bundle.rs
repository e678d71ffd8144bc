//! A folder of test executables that runs on a machine with a GPU and without Rust: `bin`, `crates/*/tests/golden`, `run.sh`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use super::{Plan, executable};
use crate::commands::trainer;
use crate::process;

/// Runs every executable of the folder.
const RUN_SH: &str = include_str!("run.sh");

/// What a test executable may ask for beside CUDA's large libraries, which the other machine must have.
const RUNTIME: &str = "libcudart.so.13";

/// Builds the tests by `command`, a `cargo test`, and writes those that match to `out`.
pub(super) fn write(command: Command, features: &OsStr, plan: &Plan, out: &Path) -> Result<ExitCode> {
    let messages = match executable::build(command)? {
        Ok(messages) => messages,
        Err(failed) => return Ok(failed),
    };
    let folders = cuda_folders()?;
    let bin = out.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("cannot create {}", bin.display()))?;
    let mut lines = Vec::new();
    for executable in executable::all(&messages) {
        let tests = executable.matching(&folders, &plan.filters);
        if tests == Some(0) {
            continue;
        }
        let (name, folder) = executable.names()?;
        strip(&executable.path, &bin.join(&name))?;
        copy_golden(&executable.manifest_dir, &out.join("crates").join(&folder))?;
        let tests = tests.map_or("cannot be started here".to_owned(), |tests| format!("{tests} tests"));
        eprintln!("test-cuda: {name}: {tests}");
        lines.push(format!("run {folder} {name}\n"));
    }
    ensure!(
        !lines.is_empty(),
        "no test of these crates matches {:?}; needs a build with the feature cuda",
        plan.filters
    );
    if plan.trainer {
        let built = trainer::build(Some(features))?;
        if !built.success() {
            return Ok(process::exit_code(built));
        }
        strip(&trainer::path()?, &bin.join("kestrel"))?;
    }
    copy_runtime(&out.join("lib"))?;
    write_script(&out.join("run.sh"), &script(&lines.concat(), &plan.filters))?;
    eprintln!("test-cuda: {}: run it there with sh run.sh", out.display());
    Ok(ExitCode::SUCCESS)
}

/// Where the libraries are that an executable asks for: this machine's, or the toolkit's stubs.
fn cuda_folders() -> Result<OsString> {
    let asked = env::var_os("CUDA_HOME").map(PathBuf::from);
    let here = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = asked.iter().flat_map(|home| [home.join("lib"), home.join("lib/stubs")]);
    env::join_paths(env::split_paths(&here).chain(folders)).context("cannot put the toolkit on the library path")
}

/// Copies an executable without its symbols, which are most of it.
fn strip(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("strip");
    command.arg("-o").arg(to).arg(from);
    let status = command.status().context("cannot start strip, of binutils")?;
    ensure!(status.success(), "strip could not make {}", to.display());
    Ok(())
}

/// Copies a crate's golden files to where its tests look for them.
fn copy_golden(manifest_dir: &Path, to: &Path) -> Result<()> {
    let (from, to) = (manifest_dir.join("tests/golden"), to.join("tests/golden"));
    fs::create_dir_all(&to).with_context(|| format!("cannot create {}", to.display()))?;
    let Ok(entries) = fs::read_dir(&from) else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", from.display()))?;
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let copied = fs::copy(entry.path(), to.join(entry.file_name()));
            copied.with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// The one library of CUDA that is small, for a machine that has another version of it.
fn copy_runtime(folder: &Path) -> Result<()> {
    let Some(home) = env::var_os("CUDA_HOME") else {
        return Ok(());
    };
    let from = Path::new(&home).join("lib").join(RUNTIME);
    if from.is_file() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let copied = fs::copy(&from, folder.join(RUNTIME));
        copied.with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// [`RUN_SH`] with its two gaps filled in.
fn script(runs: &str, filters: &[OsString]) -> String {
    let words: Vec<String> = filters.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    RUN_SH.replace("@FILTERS@", &words.join(" ")).replace("@RUNS@\n", runs)
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;

        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(path, executable).with_context(|| format!("cannot change {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The script with executables that are scripts too: one passes, one fails, and both are told which tests, and where.
    #[cfg(unix)]
    #[test]
    fn the_script_runs_all_and_fails_with_one() {
        let folder = env::temp_dir().join(format!("kestrel-bundle-{}", std::process::id()));
        fs::create_dir_all(folder.join("bin")).unwrap();
        for (name, exit) in [("good", 0), ("bad", 3)] {
            fs::create_dir_all(folder.join("crates").join(name)).unwrap();
            let program =
                format!("#!/bin/sh\necho {name} \"$@\" \"$(basename \"$CARGO_MANIFEST_DIR\")\"\nexit {exit}\n");
            write_script(&folder.join("bin").join(name), &program).unwrap();
        }
        let run = |runs: &str| {
            let script = folder.join("run.sh");
            write_script(&script, &script_of(runs)).unwrap();
            let output = Command::new("sh").arg(script).output().unwrap();
            (
                output.status.code(),
                String::from_utf8_lossy(&output.stdout).into_owned(),
            )
        };
        let (code, said) = run("run good good\nrun bad bad\n");
        assert_eq!(code, Some(1), "{said}");
        for line in [
            "good --include-ignored cuda good",
            "bad --include-ignored cuda bad",
            "1 passed, 1 failed: bad",
        ] {
            assert!(said.contains(line), "{said}");
        }
        let (code, said) = run("run good good\n");
        assert_eq!(code, Some(0), "{said}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[cfg(unix)]
    fn script_of(runs: &str) -> String {
        script(runs, &["cuda".into()])
    }
}
