//! The test executables that cargo builds, as its messages tell of them.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

/// A test executable.
pub(super) struct Executable {
    pub(super) path: PathBuf,
    /// Its crate's folder.
    pub(super) manifest_dir: PathBuf,
}

/// Builds the tests by `command`, a `cargo test`, and gives cargo's messages back; its exit code where it fails.
pub(super) fn build(mut command: Command) -> Result<Result<Vec<Value>, ExitCode>> {
    command.args(["--no-run", "--message-format=json-render-diagnostics"]);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        return Ok(Err(process::exit_code(output.status)));
    }
    messages(&String::from_utf8_lossy(&output.stdout)).map(Ok)
}

/// One JSON object a line; other lines are of build scripts.
pub(super) fn messages(output: &str) -> Result<Vec<Value>> {
    let lines = output.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).context("cargo's messages"))
        .collect()
}

/// The test executables among cargo's messages.
pub(super) fn all(messages: &[Value]) -> Vec<Executable> {
    let tests = messages
        .iter()
        .filter(|message| message["reason"] == "compiler-artifact" && message["profile"]["test"] == true);
    let found = tests.filter_map(|message| {
        Some(Executable {
            path: message["executable"].as_str()?.into(),
            manifest_dir: manifest_dir(message)?,
        })
    });
    found.collect()
}

/// The folder of the crate that a message is about.
pub(super) fn manifest_dir(message: &Value) -> Option<PathBuf> {
    let manifest = Path::new(message["manifest_path"].as_str()?);
    Some(manifest.parent().unwrap_or(Path::new("")).to_path_buf())
}

impl Executable {
    /// A name for the executable, and its crate's folder.
    pub(super) fn names(&self) -> Result<(String, String)> {
        let name = self.path.file_name().context("a test executable has no name")?;
        let folder = self.manifest_dir.file_name().context("a crate has no folder")?;
        let (name, folder) = (name.to_string_lossy(), folder.to_string_lossy());
        // Integration tests are all called `it`.
        let stem = name.rsplit_once('-').map_or(&*name, |(stem, _)| stem);
        Ok((format!("{folder}.{stem}"), folder.into_owned()))
    }

    /// The number of tests that match; none where the executable does not start, as without CUDA's libraries in `folders`.
    pub(super) fn matching(&self, folders: &OsStr, filters: &[OsString]) -> Option<usize> {
        let mut command = Command::new(&self.path);
        command.args(["--list", "--format", "terse"]).args(filters);
        command.env("LD_LIBRARY_PATH", folders);
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        let listed = String::from_utf8_lossy(&output.stdout);
        let tests = listed.lines().filter(|line| line.ends_with(": test")).count();
        output.status.success().then_some(tests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_those_of_tests() {
        let output = [
            r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":null,"manifest_path":"/w/a/Cargo.toml"}"#,
            r#"{"reason":"compiler-artifact","profile":{"test":true},"executable":"/w/t/it-0a1b","manifest_path":"/w/a/Cargo.toml"}"#,
            r#"{"reason":"build-finished","success":true}"#,
        ];
        let found = all(&messages(&output.join("\n")).unwrap());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].names().unwrap(), ("a.it".to_owned(), "a".to_owned()));
    }
}
