//! Other processes: handing over to one, so that its signals and its exit code are the user's, or running one to its end.

use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// Becomes `command`; returns only if it cannot be started.
#[cfg(unix)]
pub(crate) fn replace(mut command: Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;

    Err(command.exec()).with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// Runs `command` and passes its exit code on.
#[cfg(not(unix))]
pub(crate) fn replace(mut command: Command) -> Result<ExitCode> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    Ok(exit_code(status))
}

/// Fails where a tool is missing, with the command that installs it.
pub(crate) fn require(mut probe: Command, what: &str, install: &str) -> Result<()> {
    let probe = probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if probe.status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    bail!("{what} is not installed: {install}")
}

/// Runs a command to its end and passes its exit code on.
pub(crate) fn run(name: &str, mut command: Command) -> Result<ExitCode> {
    eprintln!("{name}: {command:?}");
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if status.success() {
        eprintln!("{name}: passed");
    }
    Ok(exit_code(status))
}

/// The child's exit code; 128 + the signal's number, as a shell has it, for a child that a signal ended.
#[cfg(unix)]
pub(crate) fn code(status: ExitStatus) -> Option<i32> {
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    status.code().or_else(|| signal.map(|signal| 128 + signal))
}

/// The child's exit code.
#[cfg(not(unix))]
pub(crate) fn code(status: ExitStatus) -> Option<i32> {
    status.code()
}

/// The child's [`code`] as this process's own.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    if status.success() {
        return ExitCode::SUCCESS;
    }
    // A code that a byte cannot hold must not become 0.
    code(status)
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_its_remedy() {
        let error = require(Command::new("no-such-tool"), "the tool", "install it").unwrap_err();
        assert_eq!(error.to_string(), "the tool is not installed: install it");
    }
}
