//! The command line of Kestrel: arguments, configuration, progress, exit codes. The only crate that prints.

mod cli;
mod commands;
mod config;
mod data;
mod device;
mod logging;
mod progress;
mod run_folder;

use std::process::ExitCode;

use clap::Parser;
use indicatif::MultiProgress;

use kestrel_kernels::memory::CachingAllocator;

use crate::cli::{Cli, Command};

/// A training step uses the same large buffers again and again.
#[global_allocator]
static ALLOCATOR: CachingAllocator = CachingAllocator::new();

fn main() -> ExitCode {
    let cli = Cli::parse();
    let bars = MultiProgress::new();
    // Held to the end: dropping it completes the trace file.
    let _logging = match logging::init(&cli.logging, &bars) {
        Ok(guard) => guard,
        Err(error) => return fail(&error),
    };
    let result = match &cli.command {
        Command::Train(args) => commands::train::run(args, &bars),
        Command::Evaluate(args) => commands::evaluate::run(args, &bars),
        Command::Bench(args) => commands::bench::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Whoever read our output has seen enough, as `head` does; that is no fault.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
