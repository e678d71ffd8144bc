//! A run that is ended from outside, at any time and by any signal, goes on as though it had not been.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::pictures::{kestrel, newest, stderr, succeed, write};
use crate::train::train;

/// A run under way.
struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Running {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kestrel"))
            .args(args)
            .current_dir(folder)
            .env_remove("RUST_LOG")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Waits for a line of its log.
    fn wait_for(&mut self, words: &str) {
        let mut before = String::new();
        loop {
            let mut line = String::new();
            assert!(
                self.log.read_line(&mut line).unwrap() > 0,
                "{words:?} never came:\n{before}"
            );
            if line.contains(words) {
                return;
            }
            before.push_str(&line);
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Its end, and what it said until then.
    fn end(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 2, 6, 3);
    dir
}

/// The files that a run's options, data and seed decide.
fn files(run: &Path) -> Vec<Vec<u8>> {
    let newest = newest(run);
    assert!(newest.ends_with("step-00000090.safetensors"), "{newest:?}");
    let names = ["best.safetensors", "metrics.jsonl", "metrics.csv", "predictions.png"];
    let mut files: Vec<Vec<u8>> = names.iter().map(|name| fs::read(run.join(name)).unwrap()).collect();
    files.push(fs::read(newest).unwrap());
    files
}

/// A save is under way at almost every instant.
const THIRTY: [&str; 6] = ["--epochs", "30", "--name", "a", "--checkpoint-every", "1"];

fn straight(more: &[&str]) -> Vec<Vec<u8>> {
    let dir = folder();
    succeed(dir.path(), &train(&[&THIRTY[..], more].concat()));
    files(&dir.path().join("runs/a"))
}

#[test]
fn a_signal_ends_the_run_after_a_step_and_it_goes_on_exactly() {
    let want = straight(&[]);
    for (signal, name, code) in [("-TERM", "SIGTERM", 143), ("-INT", "SIGINT", 130)] {
        let dir = folder();
        for epoch in ["Epoch [3/30]", "Epoch [11/30]"] {
            let mut run = Running::start(dir.path(), &train(&[&THIRTY[..], &["--resume", "auto"]].concat()));
            run.wait_for(epoch);
            run.signal(signal);
            let (status, said) = run.end();
            assert_eq!(status.code(), Some(code), "{said}");
            let words = format!("Stopped by {name} after step ");
            assert!(
                said.contains(&words) && said.contains("go on with --resume runs/a"),
                "{said}"
            );
            assert!(!said.contains("error:"), "{said}");
        }
        succeed(dir.path(), &["train", "--resume", "runs/a"]);
        assert!(files(&dir.path().join("runs/a")) == want, "{name}");
    }
}

#[test]
fn a_signal_in_validation_ends_it_and_the_run_goes_on_exactly() {
    let make = || {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("pictures"), 2, 4, 250);
        dir
    };
    let args = train(&[
        "--epochs",
        "2",
        "--name",
        "a",
        "--eval-batch-size",
        "1",
        "--num-images",
        "0",
    ]);
    let whole = make();
    succeed(whole.path(), &args);
    let dir = make();
    let mut run = Running::start(dir.path(), &args);
    run.wait_for("Epoch [1/2], Step [2/2]");
    run.signal("-TERM");
    let (status, said) = run.end();
    assert_eq!(status.code(), Some(143), "{said}");
    let resumed = succeed(dir.path(), &["train", "--resume", "runs/a"]);
    let said = stderr(&resumed);
    assert!(said.contains("after epoch 0 of 2, before validation, step 2"), "{said}");
    for file in ["metrics.jsonl", "best.safetensors"] {
        let read = |dir: &tempfile::TempDir| fs::read(dir.path().join("runs/a").join(file)).unwrap();
        assert!(read(&dir) == read(&whole), "{file}");
    }
}

/// `kill -9` at any instant.
#[test]
fn a_killed_run_goes_on_exactly() {
    // Delays that are spread over a run's length on a fast and on a slow machine.
    killed_after(&[1, 9, 30, 70, 120, 200, 45, 310], &[]);
}

/// The same in shorter types, with a scale of the loss that moves.
#[test]
fn a_killed_run_of_another_precision_goes_on_exactly() {
    killed_after(&[5, 80, 240], &["--precision", "bf16"]);
    let scaled = [
        "--precision",
        "f16",
        "--loss-scale",
        "16",
        "--loss-scale-interval",
        "20",
    ];
    killed_after(&[20, 140], &scaled);
}

fn killed_after(delays: &[u64], more: &[&str]) {
    let want = straight(more);
    let dir = folder();
    let args = train(&[&THIRTY[..], &["--resume", "auto"], more].concat());
    for delay in delays {
        let mut run = Running::start(dir.path(), &args);
        run.wait_for("Run: ");
        std::thread::sleep(Duration::from_millis(*delay));
        // It may be done already.
        run.child.kill().unwrap();
        run.child.wait().unwrap();
    }
    let last = succeed(dir.path(), &args);
    assert!(files(&dir.path().join("runs/a")) == want, "{}", stderr(&last));
}

#[test]
fn the_second_run_in_a_folder_is_refused_and_told_of_the_first() {
    let dir = folder();
    let mut first = Running::start(dir.path(), &train(&["--epochs", "100000", "--name", "a"]));
    // An epoch's checkpoint is written beside the next epoch, and is on the disk before that one's is begun.
    first.wait_for("Epoch [3/");
    let pid = format!("process {} on ", first.child.id());
    let attempts = [
        train(&["--name", "a"]),
        train(&["--name", "a", "--resume", "auto"]),
        vec!["train", "--resume", "runs/a"],
    ];
    for args in attempts {
        let second = kestrel(dir.path(), &args);
        let text = stderr(&second);
        assert_eq!(second.status.code(), Some(2), "{args:?}: {text}");
        for words in ["runs/a is in use by", &pid, "since 20", "UTC"] {
            assert!(text.contains(words), "{words:?} in {text}");
        }
    }
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    // The lock of a killed process is nobody's.
    succeed(dir.path(), &["train", "--resume", "runs/a", "--epochs", "1"]);
}
