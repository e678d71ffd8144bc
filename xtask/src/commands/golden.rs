//! `cargo xtask golden`: makes the golden test data again. Needs a Python with PyTorch; tests need only its output.

use std::ffi::OsString;
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, ExitCode};
use std::{fs, io};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;

/// The module that the scripts import to write their files.
const RECORDER: &str = "record.py";

/// Runs every script in `scripts/golden` with the given Python.
pub(crate) fn run(args: &[OsString]) -> Result<ExitCode> {
    let python = match args {
        [flag, python] if flag == "--python" => interpreter(Path::new(python))?,
        _ => bail!(
            "usage: cargo xtask golden --python PYTHON (one that has torch, torchvision, scikit-learn and safetensors)"
        ),
    };
    let folder = cargo::root().join("scripts").join("golden");
    let scripts = scripts(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    ensure!(!scripts.is_empty(), "no script in {} but {RECORDER}", folder.display());
    for script in scripts {
        let name = script.file_name().unwrap_or_default().display();
        eprintln!("golden: {name}");
        let mut command = Command::new(&python);
        // `import record` must not leave a __pycache__ in the tree.
        command
            .arg(&script)
            .current_dir(&folder)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let status = command
            .status()
            .with_context(|| format!("cannot start {}", python.display()))?;
        ensure!(status.success(), "{name} failed ({status})");
    }
    Ok(ExitCode::SUCCESS)
}

/// A bare name is looked up on the path; a path is the user's, so it is made absolute before the folder changes.
fn interpreter(python: &Path) -> Result<PathBuf> {
    if python.components().count() == 1 {
        return Ok(python.to_path_buf());
    }
    absolute(python).with_context(|| format!("cannot make {} absolute", python.display()))
}

/// All scripts but [`RECORDER`], by name.
fn scripts(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut scripts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "py") && path.file_name().is_some_and(|name| name != RECORDER) {
            scripts.push(path);
        }
    }
    scripts.sort();
    Ok(scripts)
}
