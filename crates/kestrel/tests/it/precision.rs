//! `--precision`: runs that go on exactly, and what is refused.

use std::fs;
use std::path::Path;

use crate::pictures::{kestrel, newest, stderr, stdout, succeed, write};
use crate::train::train;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 2, 6, 3);
    dir
}

fn files(run: &Path) -> Vec<Vec<u8>> {
    let names = ["best.safetensors", "metrics.jsonl", "metrics.csv", "predictions.png"];
    let mut files: Vec<Vec<u8>> = names.iter().map(|name| fs::read(run.join(name)).unwrap()).collect();
    files.push(fs::read(newest(run)).unwrap());
    files
}

#[test]
fn a_run_in_a_shorter_type_stopped_and_resumed_is_the_straight_run() {
    let mut best = Vec::new();
    for (precision, more) in [
        ("f32", &[][..]),
        ("bf16", &[]),
        // Skips steps at first, and grows again.
        (
            "f16",
            &[
                "--loss-scale",
                "4194304",
                "--loss-scale-interval",
                "2",
                "--accumulate",
                "1",
            ],
        ),
    ] {
        let precision = ["--precision", precision, "--name", "a"];
        let args = |epochs: &'static str| train(&[&["--epochs", epochs][..], &precision, more].concat());
        let (whole, dir) = (folder(), folder());
        let said = stderr(&succeed(whole.path(), &args("4")));
        assert_eq!(
            said.matches("computed in f32 and rounded").count(),
            usize::from(precision[1] != "f32"),
            "{said}"
        );
        succeed(dir.path(), &args("1"));
        succeed(dir.path(), &["train", "--resume", "runs/a", "--epochs", "4"]);
        let run = |dir: &tempfile::TempDir| dir.path().join("runs/a");
        assert!(files(&run(&dir)) == files(&run(&whole)), "{precision:?}");
        let config = fs::read_to_string(run(&whole).join("config.toml")).unwrap();
        assert!(
            config.contains(&format!("precision = \"{}\"", precision[1])),
            "{config}"
        );
        let metrics = fs::read_to_string(run(&whole).join("metrics.jsonl")).unwrap();
        let skipped = metrics
            .lines()
            .filter(|line| line.contains("\"skipped_steps\""))
            .count();
        assert_eq!(skipped > 0, precision[1] == "f16", "{metrics}");
        // Another precision is another run.
        let error = kestrel(
            dir.path(),
            &["train", "--resume", "runs/a", "--precision", other(precision[1])],
        );
        let error = stderr(&error);
        assert!(error.contains("--precision is") && error.contains("and was"), "{error}");
        best.push(fs::read(run(&whole).join("best.safetensors")).unwrap());
    }
    assert!(best[0] != best[1] && best[1] != best[2] && best[0] != best[2]);
}

fn other(precision: &str) -> &'static str {
    if precision == "bf16" { "f32" } else { "bf16" }
}

#[test]
fn weights_are_evaluated_and_asked_in_a_precision() {
    let dir = folder();
    succeed(dir.path(), &train(&["--epochs", "1", "--name", "a"]));
    let weights = ["--weights", "runs/a/best.safetensors"];
    let ask = |command: &[&str], precision: &str| {
        let found = succeed(dir.path(), &[command, &weights, &["--precision", precision]].concat());
        stdout(&found)
    };
    let evaluate = ["evaluate", "--data", "pictures", "--format", "json", "--no-report"];
    let predict = ["predict", "pictures/test", "--format", "csv"];
    for command in [&evaluate[..], &predict] {
        let answers = ["f32", "bf16", "f16"].map(|precision| ask(command, precision));
        assert!(answers[0] != answers[1] && answers[1] != answers[2], "{answers:?}");
        assert_eq!(answers[0], stdout(&succeed(dir.path(), &[command, &weights].concat())));
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_one_error() {
    let dir = folder();
    for (args, words) in [
        (&["--loss-scale", "1024"][..], "loss-scale is for precision f16"),
        (
            &["--precision", "bf16", "--loss-scale-interval", "7"],
            "loss-scale-interval is for precision f16",
        ),
        (
            &["--precision", "f16", "--loss-scale", "0"],
            "loss-scale is 0, but must be",
        ),
        (
            &["--precision", "f16", "--loss-scale", "inf"],
            "loss-scale is inf, but must be",
        ),
        (
            &["--precision", "f16", "--loss-scale-interval", "0"],
            "loss-scale-interval is 0, but must be",
        ),
        (&["--precision", "f64"], "f64"),
        (&["--precision", "fp16"], "fp16"),
    ] {
        let output = kestrel(dir.path(), &train(args));
        assert!(!output.status.success());
        let said = stderr(&output);
        assert_eq!(said.matches("error:").count(), 1, "{said}");
        assert!(said.contains(words), "{words:?} in {said}");
        assert!(!dir.path().join("runs").exists());
    }
}
