//! What a command line owes its user: completions, help, colours, codes.

use std::process::Stdio;

use crate::pictures::{command, kestrel, stdout, succeed, write};
use crate::train::train;

/// Every command and subcommand.
const COMMANDS: [&[&str]; 11] = [
    &["train"],
    &["finetune-resnet"],
    &["evaluate"],
    &["export"],
    &["model", "summary"],
    &["data", "inspect"],
    &["bench"],
    &["doctor"],
    &["completions"],
    &["serve"],
    &[],
];

#[test]
fn every_command_has_a_help_with_examples_without_colours_in_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    for path in COMMANDS {
        let help = stdout(&succeed(dir.path(), &[path, &["--help"]].concat()));
        assert!(!help.contains('\u{1b}'), "{help}");
        assert!(help.contains("kestrel"), "{help}");
        if !path.is_empty() && path != ["bench"] {
            assert!(help.contains("Examples:\n  kestrel "), "{path:?}\n{help}");
        }
    }
    let help = stdout(&succeed(dir.path(), &["--help"]));
    for code in ["0 ", "1 ", "2 "] {
        let codes = help.split("Exit codes:").nth(1).unwrap();
        assert!(codes.contains(code), "{help}");
    }
}

/// Each command's help says what it does itself.
#[test]
fn the_help_is_true_of_its_command() {
    let dir = tempfile::tempdir().unwrap();
    let help = |command: &str| {
        let text = stdout(&succeed(dir.path(), &[command, "--help"]));
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let (train, evaluate) = (help("train"), help("evaluate"));
    assert!(
        train.contains("the embedded sample where that cannot be had"),
        "{train}"
    );
    assert!(!evaluate.contains("cannot be had"), "{evaluate}");
    for command in [&train, &help("finetune-resnet")] {
        assert!(command.contains("transforms, which docs/guide.md lists"), "{command}");
        for option in ["--resume", "--allow-code-change", "--find-lr", "--find-lr-plot"] {
            let (_, config) = command.split_once("--config <FILE>").unwrap();
            let (config, _) = config.split_once("--resume <PATH|auto>").unwrap();
            assert!(config.contains(option), "{config}");
        }
    }
}

#[test]
fn colours_are_off_where_no_color_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let help = |no_color: &str| {
        let mut command = command(dir.path(), &["train", "--help"]);
        // As on a terminal.
        command.env("CLICOLOR_FORCE", "1").env("NO_COLOR", no_color);
        stdout(&command.output().unwrap())
    };
    assert!(help("").contains('\u{1b}') && !help("1").contains('\u{1b}'));
}

#[test]
fn completions_name_commands_and_options() {
    let dir = tempfile::tempdir().unwrap();
    for (shell, words) in [
        ("bash", ["complete -F _kestrel", "finetune-resnet", "--layer-lr-decay"]),
        ("zsh", ["#compdef kestrel", "finetune-resnet", "--layer-lr-decay"]),
        ("fish", ["complete -c kestrel", "finetune-resnet", "layer-lr-decay"]),
    ] {
        let script = stdout(&succeed(dir.path(), &["completions", shell]));
        for word in words {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(kestrel(dir.path(), &["completions", "cmd"]).status.code(), Some(2));
}

/// Where nobody can read the last word any more, the exit code still tells.
#[cfg(target_os = "linux")]
#[test]
fn a_full_stderr_changes_no_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = command(dir.path(), &["evaluate", "--weights", "none"])
        .stderr(full)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}

/// Who does not read the table gets the files all the same.
#[test]
fn a_run_is_whole_though_nobody_reads_its_output() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 2, 6, 3);
    let mut child = command(dir.path(), &train(&["--epochs", "1", "--name", "a"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    for file in ["evaluation.json", "predictions.png", "report.html"] {
        assert!(dir.path().join("runs/a").join(file).is_file(), "{file}");
    }
}

/// The last word is an object too where the lines are.
#[test]
fn errors_for_machines() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.toml"), "data = \"none\"\nlog-format = \"json\"").unwrap();
    for args in [
        &["evaluate", "--weights", "none", "--log-format", "json"][..],
        // A file may ask for it too.
        &["train", "--config", "c.toml"],
    ] {
        let output = kestrel(dir.path(), args);
        let line: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(line["level"], "ERROR");
        assert!(line["message"].as_str().unwrap().contains("none"), "{line}");
        // As the other lines have it.
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(timestamp.len() == 27 && timestamp.ends_with('Z'), "{line}");
    }
}

/// A reader that has seen enough, as `head` does, is no fault.
#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = command(dir.path(), &["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
