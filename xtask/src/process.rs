//! Handing over to another process: its signals and its exit code are the user's, as if it had been started directly.

use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result};

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

/// The child's exit code; 128 + the signal's number, as a shell has it, for a child that a signal ended.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    #[cfg(unix)]
    let code = status
        .code()
        .or_else(|| std::os::unix::process::ExitStatusExt::signal(&status).map(|s| 128 + s));
    #[cfg(not(unix))]
    let code = status.code();
    if status.success() {
        return ExitCode::SUCCESS;
    }
    // A code that a byte cannot hold must not become 0.
    code.and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}
