//! `kestrel completions`.

use std::io::{self, Write};

use anyhow::Result;
use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArgs};

/// Runs the command.
pub(crate) fn run(args: &CompletionsArgs) -> Result<()> {
    // The generators panic where they cannot write, as into a closed pipe; memory always takes it.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "kestrel", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(())
}
