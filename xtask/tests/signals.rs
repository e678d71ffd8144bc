//! A signal to `cargo xtask train` is one to the trainer: xtask becomes it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn a_signal_to_xtask_ends_the_run_well() {
    let xtask = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let folder = std::env::temp_dir().join(format!("kestrel-signals-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let command = || {
        let mut command = Command::new(xtask);
        if xtask.with_file_name("kestrel").is_file() {
            // It is built already, with the features of the whole workspace; cargo would build it again with its own.
            command.env("CARGO", "true");
        }
        command.current_dir(&folder).env_remove("RUST_LOG");
        command
    };
    let args = "train --dataset fashion-mnist-sample --limit 64 --width 1 --batch-size 4 --epochs 100000 --log-every 1 \
                --name a --threads 1";
    let mut child = command()
        .args(args.split_whitespace())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("Step [3/16]") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the run ended by itself");
    }
    let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143), "{rest}");
    assert!(rest.contains("Stopped by SIGTERM after step"), "{rest}");
    let resumed = command()
        .args("train --resume runs/a --epochs 1 --num-images 0".split_whitespace())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&resumed.stderr).into_owned();
    assert!(
        resumed.status.success() && said.contains("Resuming runs/a/checkpoints/step-"),
        "{said}"
    );
    std::fs::remove_dir_all(&folder).unwrap();
}
