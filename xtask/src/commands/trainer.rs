//! `cargo xtask train …` and every other command that xtask does not own: builds `kestrel` and becomes it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{cargo, process};

/// Builds the trainer in release mode, then replaces this process by it. The working directory stays the user's.
pub(crate) fn run(features: Option<&OsStr>, args: &[OsString]) -> Result<ExitCode> {
    let status = build(features)?;
    if !status.success() {
        return Ok(process::exit_code(status));
    }
    let mut command = Command::new(path()?);
    command.args(args);
    if let Some(commit) = commit() {
        command.env(COMMIT, commit);
    }
    process::replace(command)
}

/// What tells the trainer of which commit it is, for the record that a run keeps.
const COMMIT: &str = "KESTREL_COMMIT";

/// The commit that is checked out, with `-dirty` where something is changed; none without git.
fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(cargo::root());
    git.args(["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]);
    let output = git.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).ok())??;
    Some(text.trim().to_owned())
}

/// Where the trainer lies once it is built: one profile, one target directory, so beside xtask.
pub(super) fn path() -> Result<PathBuf> {
    let xtask = env::current_exe().context("cannot tell where xtask lies")?;
    let kestrel = xtask.with_file_name(format!("kestrel{}", env::consts::EXE_SUFFIX));
    ensure!(
        kestrel.is_file(),
        "the trainer was built, but not as {}: run xtask through cargo",
        kestrel.display()
    );
    Ok(kestrel)
}

/// Builds the trainer. Cargo's messages go to stderr as they come, but for its closing "Finished": a built trainer starts without a word.
pub(super) fn build(features: Option<&OsStr>) -> Result<ExitStatus> {
    let mut command = cargo::release("build", features);
    command
        .args(["--package", "kestrel", "--bin", "kestrel"])
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let unasked = env::var_os("CARGO_TERM_COLOR").is_none() && env::var_os("NO_COLOR").is_none();
    if unasked && io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command.spawn().context("cannot start cargo")?;
    if let Some(messages) = child.stderr.take() {
        for line in BufReader::new(messages).split(b'\n') {
            let line = line.context("cannot read cargo's messages")?;
            if !is_closing(&String::from_utf8_lossy(&line)) {
                let mut stderr = io::stderr().lock();
                stderr.write_all(&line)?;
                stderr.write_all(b"\n")?;
            }
        }
    }
    child.wait().context("cannot wait for cargo")
}

/// Whether a line is cargo's "Finished `release` profile …", coloured or not.
fn is_closing(line: &str) -> bool {
    // An escape sequence ends with its first letter.
    let word = line.split('\u{1b}').enumerate().map(|(i, part)| {
        let escaped = i > 0;
        let end = if escaped {
            part.find(|c: char| c.is_ascii_alphabetic()).map_or(0, |end| end + 1)
        } else {
            0
        };
        &part[end..]
    });
    word.collect::<String>().trim_start().starts_with("Finished ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_closing_line_is_held_back() {
        assert!(is_closing(
            "    Finished `release` profile [optimized + debuginfo] target(s) in 0.05s"
        ));
        assert!(is_closing(
            "\u{1b}[1m\u{1b}[92m    Finished\u{1b}[0m `release` profile [optimized] in 0.05s"
        ));
        assert!(!is_closing("   Compiling finished v0.1.0"));
        assert!(!is_closing("\u{1b}[1m\u{1b}[92m   Compiling\u{1b}[0m kestrel v0.1.0"));
        assert!(!is_closing("error: could not compile `kestrel`"));
        assert!(!is_closing(""));
    }
}
