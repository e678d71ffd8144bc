//! What a command line owes its user: completions, help, colours, codes.

use std::process::Stdio;

use crate::pictures::{command, kestrel, stdout, succeed};

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
