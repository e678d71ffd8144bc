//! Evaluating a run's weights: on which images, where the results go, and options that make no sense.

use std::fs;
use std::path::Path;

use crate::pictures::{kestrel, stderr, stdout, succeed, write};
use crate::train::train;

const WEIGHTS: &str = "runs/a/best.safetensors";

/// Whole folders of two classes with 12 images each, `whole` and, other ones, `others`; and a run `a` that held a part of `whole` back.
fn whole() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 2, 12, 5);
    fs::rename(dir.path().join("train"), dir.path().join("whole")).unwrap();
    fs::rename(dir.path().join("test"), dir.path().join("others")).unwrap();
    let args = "train --data whole --val-fraction 0.25 --width 1 --epochs 1 --batch-size 8 --name a";
    succeed(dir.path(), &args.split(' ').collect::<Vec<_>>());
    dir
}

fn evaluate<'a>(more: &[&'a str]) -> Vec<&'a str> {
    ["evaluate", "--weights", WEIGHTS]
        .into_iter()
        .chain(more.iter().copied())
        .collect()
}

/// What an evaluation prints, which must begin with these images.
fn on(folder: &Path, more: &[&str], images: &str) -> String {
    let output = succeed(folder, &evaluate(more));
    let text = stdout(&output);
    assert!(
        text.starts_with(&format!("Accuracy on the {images} images")),
        "{more:?}: {text}{}",
        stderr(&output)
    );
    text
}

fn counts(folder: &Path) -> Vec<u64> {
    let record: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("data.json")).unwrap()).unwrap();
    let splits = record["splits"].as_array().unwrap().iter();
    splits
        .flat_map(|split| split["counts"].as_array().unwrap())
        .map(|count| count.as_u64().unwrap())
        .collect()
}

/// Nothing but the place of both is another.
#[test]
fn a_run_that_moved_with_its_data_is_evaluated_from_there() {
    let dir = whole();
    let before = on(dir.path(), &[], "6 test");
    let moved = tempfile::tempdir().unwrap();
    for name in ["runs", "whole"] {
        fs::rename(dir.path().join(name), moved.path().join(name)).unwrap();
    }
    assert_eq!(on(moved.path(), &[], "6 test"), before);
    fs::remove_dir_all(moved.path().join("whole")).unwrap();
    let fails = || {
        let output = kestrel(moved.path(), &evaluate(&[]));
        let text = stderr(&output);
        assert!(
            output.status.code() == Some(1) && text.contains("whole") && text.contains("--data"),
            "{text}"
        );
        text
    };
    fails();
    // What lies there now is not what the run had.
    fs::rename(dir.path().join("others"), moved.path().join("whole")).unwrap();
    assert!(fails().contains("holds other images"));
}

#[test]
fn of_data_that_moved_what_the_run_held_back_is_evaluated() {
    let dir = whole();
    let before = on(dir.path(), &[], "6 test");
    fs::rename(dir.path().join("whole"), dir.path().join("moved")).unwrap();
    assert_eq!(on(dir.path(), &["--data", "moved"], "6 test"), before);
    on(dir.path(), &["--data", "moved", "--split", "train"], "18 train");
    // These are the run's results, and no others.
    assert_eq!(fs::read_dir(dir.path().join("runs")).unwrap().count(), 1);
    // A set with splits, of which a part of the training images was held back.
    write(&dir.path().join("pictures"), 2, 10, 3);
    succeed(
        dir.path(),
        &train(&["--epochs", "1", "--val-fraction", "0.2", "--name", "b"]),
    );
    fs::rename(dir.path().join("pictures"), dir.path().join("there")).unwrap();
    for (split, images) in [("val", "4 val"), ("train", "16 train"), ("test", "6 test")] {
        let args = [
            "evaluate",
            "--weights",
            "runs/b/best.safetensors",
            "--data",
            "there",
            "--split",
            split,
        ];
        let text = stdout(&succeed(dir.path(), &args));
        assert!(text.starts_with(&format!("Accuracy on the {images} images")), "{text}");
    }
}

/// No checkpoint is left that tells whether they are: what may have been trained on is left out all the same.
#[test]
fn images_that_may_be_the_runs_are_split_as_the_runs() {
    let dir = whole();
    let results = fs::read(dir.path().join("runs/a/evaluation.json")).unwrap();
    fs::rename(dir.path().join("whole"), dir.path().join("moved")).unwrap();
    fs::remove_dir_all(dir.path().join("runs/a/checkpoints")).unwrap();
    let output = succeed(dir.path(), &evaluate(&["--data", "moved"]));
    assert!(stdout(&output).contains("the 6 test images"), "{}", stdout(&output));
    assert!(
        stderr(&output).contains("no checkpoint that tells"),
        "{}",
        stderr(&output)
    );
    assert!(fs::read(dir.path().join("runs/a/evaluation.json")).unwrap() == results);
    assert!(dir.path().join("runs/a-evaluation-1/report.html").is_file());
}

#[test]
fn other_images_are_evaluated_whole_and_replace_no_results_of_the_run() {
    let dir = whole();
    let run = dir.path().join("runs/a");
    let files = ["evaluation.json", "gallery.json", "data.json", "report.html"];
    let read = || files.map(|file| fs::read(run.join(file)).unwrap());
    let before = read();
    let output = succeed(dir.path(), &evaluate(&["--data", "others"]));
    assert!(stdout(&output).contains("the 10 test images"), "{}", stdout(&output));
    assert!(
        stderr(&output).contains("all of it is evaluated"),
        "{}",
        stderr(&output)
    );
    assert_eq!(counts(&dir.path().join("runs/a-evaluation-1")), [5, 5]);
    // Not where they would stand for the run's, whether it is said or not.
    let refused = kestrel(dir.path(), &evaluate(&["--data", "others", "--report", "runs/a"]));
    let text = stderr(&refused);
    assert!(
        refused.status.code() == Some(2) && text.contains("runs/a") && text.contains("--report"),
        "{text}"
    );
    assert!(read() == before);
    // A folder that was named says of which images its results are.
    let report = |data: &str, folder: &str| {
        succeed(dir.path(), &evaluate(&["--data", data, "--report", folder]));
        counts(&dir.path().join(folder))
    };
    assert_eq!(report("others", "r"), [5, 5]);
    assert_eq!(report("whole", "r"), [3, 3]);
    // The run's own may be told to go where they go.
    assert_eq!(report("whole", "runs/a"), [9, 9, 3, 3]);
}

#[test]
fn options_of_evaluate_that_make_no_sense_are_told_before_anything_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let skip = ["--on-bad-sample", "skip", "--max-bad-fraction", "-1"];
    for (more, code, word) in [
        (&skip[..], 2, "max-bad-fraction is -1"),
        (
            &["--max-bad-fraction", "0.5"],
            2,
            "max-bad-fraction is for on-bad-sample skip",
        ),
        // As of `train`: what the machine has is not known from the options.
        (
            &["--device", "cpu", "--precision", "tf32"],
            1,
            "tf32 is of NVIDIA's GPUs",
        ),
    ] {
        let output = kestrel(dir.path(), &evaluate(&[more, &["--data", "nowhere"]].concat()));
        let text = stderr(&output);
        assert!(output.status.code() == Some(code) && text.contains(word), "{text}");
    }
}
