//! The command line of Kestrel: arguments, configuration, progress, exit codes. The only crate that prints.

mod cli;
mod command_line;
mod commands;
mod config;
mod data;
mod device;
mod environment;
mod exit;
mod http;
mod initial_weights;
mod interrupt;
mod live_view;
mod logging;
mod methods;
mod pretrained;
mod progress;
mod run_data;
mod run_folder;
mod run_lock;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use indicatif::MultiProgress;

use kestrel_kernels::memory::CachingAllocator;

use crate::cli::{Cli, Command, LogFormat};
use crate::config::TrainOptions;
use crate::exit::Exit;

/// A training step uses the same large buffers again and again.
#[global_allocator]
static ALLOCATOR: CachingAllocator = CachingAllocator::new();

fn main() -> ExitCode {
    let mut cli = command_line::parse();
    if let Command::Train(args) | Command::FinetuneResnet(args) = &mut cli.command {
        // Every command takes it, so it stands outside; to `train` it is an option like the others, saved with the run.
        args.options.cpu_features = cli.cpu_features;
    }
    let bars = MultiProgress::new();
    let mut format = cli.logging.log_format.unwrap_or_default();
    let result = run(&cli, &bars, &mut format);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&error, format, &cli.command),
    }
}

/// Runs the command; `format` becomes that of the log's lines.
fn run(cli: &Cli, bars: &MultiProgress, format: &mut LogFormat) -> Result<()> {
    // A configuration file may speak of logging too, so it is read first.
    let file = match &cli.command {
        Command::Train(args) | Command::FinetuneResnet(args) => args
            .config
            .as_deref()
            .map(TrainOptions::from_file)
            .transpose()
            .map_err(exit::usage)?
            .unwrap_or_default(),
        _ => TrainOptions::default(),
    };
    let logging = file.logging(&cli.logging);
    *format = logging.log_format.unwrap_or_default();
    // Held to the end: dropping it completes the trace file.
    let _logging = logging::init(&logging, bars)?;
    if !matches!(cli.command, Command::Train(_) | Command::FinetuneResnet(_)) {
        // `train` chooses by itself, since a file or the run that it resumes may decide.
        cli.cpu_features.unwrap_or_default().choose().map_err(exit::usage)?;
    }
    match &cli.command {
        Command::Train(args) => commands::train::run(args, &TrainOptions::default(), &file, bars),
        Command::FinetuneResnet(args) => commands::train::run(args, &TrainOptions::finetune_resnet(), &file, bars),
        Command::Export(args) => commands::export::run(args),
        Command::Evaluate(args) => commands::evaluate::run(args, bars),
        Command::Predict(args) => commands::predict::run(args, bars),
        Command::Report(args) => commands::report::run(args),
        Command::Watch(args) => commands::watch::run(args),
        Command::Serve(args) => commands::serve::run(args),
        Command::Data(args) => commands::data::run(args, bars),
        Command::Model(args) => commands::model::run(args),
        Command::Bench(args) => commands::bench::run(args),
        Command::Doctor(args) => commands::doctor::run(args),
        Command::Completions(args) => commands::completions::run(args),
    }
}

/// Whoever read our output has seen enough, as `head` does; that is no fault.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Says why the program ends, and gives its exit code.
fn fail(error: &anyhow::Error, format: LogFormat, command: &Command) -> ExitCode {
    let exit = error.downcast_ref::<Exit>();
    let asked_for = exit.is_some_and(Exit::was_asked_for);
    let message = exit.map_or_else(|| describe_with_option(error, command), ToString::to_string);
    let line = match format {
        LogFormat::Text if asked_for => message,
        LogFormat::Text => format!("error: {message}"),
        LogFormat::Json => {
            let level = if asked_for { "INFO" } else { "ERROR" };
            let (timestamp, target) = (logging::timestamp(), env!("CARGO_PKG_NAME"));
            serde_json::json!({"timestamp": timestamp, "level": level, "message": message, "target": target})
                .to_string()
        }
    };
    // Where nobody can read it any more, the exit code still says what has happened.
    let _ = writeln!(io::stderr(), "{line}");
    exit.map_or(ExitCode::FAILURE, |exit| ExitCode::from(exit.code))
}

/// An error and its causes, and the option of the command that may help, if there is one: the libraries do not know of any.
fn describe_with_option(error: &anyhow::Error, command: &Command) -> String {
    let mut text = describe(error);
    if let Some(option) = option_that_helps(error, command) {
        text.push_str("; see ");
        text.push_str(option);
    }
    text
}

fn option_that_helps(error: &anyhow::Error, command: &Command) -> Option<&'static str> {
    let trains = match command {
        Command::Train(_) | Command::FinetuneResnet(_) => true,
        Command::Evaluate(_) => false,
        // The others have no such options.
        _ => return None,
    };
    let option_of = |error: &kestrel_data::Error| match error {
        kestrel_data::Error::TooManyBadSamples { .. } => Some("--max-bad-fraction"),
        kestrel_data::Error::UnknownLayout { .. } | kestrel_data::Error::Unverified { .. } => Some("--data"),
        kestrel_data::Error::SizeMismatch { .. } if trains => Some("--preprocessing and --image-size"),
        kestrel_data::Error::SizeMismatch { .. } => Some("--config, a file with eval-transforms"),
        _ => None,
    };
    error
        .chain()
        .find_map(|cause| match cause.downcast_ref::<kestrel_train::Error>() {
            Some(kestrel_train::Error::Data(error)) => option_of(error),
            _ => cause.downcast_ref().and_then(option_of),
        })
}

/// An error and its causes, each once: many an error's text has its cause's in it.
fn describe(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |mut text, cause| {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use clap::Parser;

    use super::*;

    fn command(args: &[&str]) -> Command {
        Cli::try_parse_from([&["kestrel"], args].concat()).unwrap().command
    }

    #[test]
    fn the_option_that_helps_is_named_here_and_not_in_the_libraries() {
        let error = || kestrel_data::Error::TooManyBadSamples {
            dataset: "d".into(),
            bad: 3,
            samples: 9,
            max_bad_fraction: 0.1,
            last: Box::new(kestrel_data::Error::EmptySplit { path: "p".into() }),
        };
        for wrapped in [
            anyhow!(error()),
            anyhow!(kestrel_train::Error::Data(error())).context("training"),
        ] {
            let text = describe_with_option(&wrapped, &command(&["train"]));
            assert!(text.ends_with("; see --max-bad-fraction"), "{text}");
            assert!(!wrapped.root_cause().to_string().contains("--"), "{text}");
        }
    }

    #[test]
    fn no_command_is_told_of_an_option_that_it_lacks() {
        let size = || kestrel_data::Error::SizeMismatch {
            path: "p".into(),
            index: 1,
            expected: (2, 2),
            got: (3, 3),
        };
        let layout = || kestrel_data::Error::UnknownLayout {
            path: "p".into(),
            expected: "x",
        };
        let evaluate = ["evaluate", "--weights", "w"];
        for (args, error, option) in [
            (
                &["finetune-resnet"][..],
                size(),
                Some("--preprocessing and --image-size"),
            ),
            (&evaluate, size(), Some("--config, a file with eval-transforms")),
            (&evaluate, layout(), Some("--data")),
            (&["data", "inspect", "p"], layout(), None),
        ] {
            let text = describe_with_option(&anyhow!(error), &command(args));
            let said = text.split_once("; see ").map(|(_, option)| option);
            assert_eq!(said, option, "{args:?}: {text}");
        }
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow!("a.jpg is cut off").context("sample 3 of d: a.jpg is cut off");
        assert_eq!(describe(&error), "sample 3 of d: a.jpg is cut off");
        let error = anyhow!("no such file").context("loading w").context("evaluating");
        assert_eq!(describe(&error), "evaluating: loading w: no such file");
    }
}
