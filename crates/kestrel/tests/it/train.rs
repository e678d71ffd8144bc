//! Training, evaluating and resuming.

use std::fs;
use std::path::Path;

use crate::pictures::{kestrel, newest, stderr, stdout, succeed, write};

pub(crate) const SMALL: [&str; 12] = [
    "train",
    "--data",
    "pictures",
    "--width",
    "2",
    "--batch-size",
    "4",
    "--log-every",
    "2",
    "--device",
    "cpu",
    "--lr=0.01",
];

pub(crate) fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    SMALL.iter().copied().chain(more.iter().copied()).collect()
}

fn read(folder: &Path, run: &str, file: &str) -> Vec<u8> {
    fs::read(folder.join("runs").join(run).join(file)).unwrap()
}

#[test]
fn a_run_leaves_all_its_files_and_its_weights_evaluate() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 3, 5, 2);
    let output = succeed(dir.path(), &train(&["--epochs", "2"]));
    let log = stderr(&output);
    for line in [
        "Epoch [1/2], Step [2/4], Loss: ",
        ", Acc: ",
        "Epoch [2/2] done:",
        "Validation: the test split",
        "parameters",
    ] {
        assert!(log.contains(line), "{line:?} in\n{log}");
    }
    assert!(
        stdout(&output).starts_with("Accuracy on the 6 test images: "),
        "{}",
        stdout(&output)
    );
    let run = dir.path().join("runs/pictures-cnn-1");
    let picture = image::open(run.join("predictions.png")).unwrap();
    assert!(picture.width() > 600 && picture.height() > 400);
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(
        config.contains("epochs = 2") && config.contains("width = 2"),
        "{config}"
    );

    let evaluated = succeed(
        dir.path(),
        &[
            "evaluate",
            "--weights",
            "runs/pictures-cnn-1/best.safetensors",
            "--data",
            "pictures",
            "--predictions",
            "g.png",
        ],
    );
    assert_eq!(stdout(&evaluated), stdout(&output));
    assert!(dir.path().join("g.png").is_file());
    let again = succeed(dir.path(), &["train", "--config", "runs/pictures-cnn-1/config.toml"]);
    assert_eq!(stdout(&again), stdout(&output));
    assert_eq!(
        read(dir.path(), "pictures-cnn-1", "best.safetensors"),
        read(dir.path(), "pictures-cnn-2", "best.safetensors")
    );
}

/// A run's name is the run's: its options make another run, which gets a name of its own.
#[test]
fn the_options_of_a_named_run_begin_another() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 2, 4, 2);
    succeed(dir.path(), &train(&["--epochs", "1", "--name", "first"]));
    let config = "runs/first/config.toml";
    succeed(dir.path(), &["train", "--config", config, "--seed", "1"]);
    assert!(dir.path().join("runs/pictures-cnn-1/best.safetensors").is_file());
    // It goes on under its name all the same.
    succeed(dir.path(), &["train", "--resume", "runs/first", "--epochs", "2"]);
    let auto = [
        "train", "--resume", "auto", "--config", config, "--name", "first", "--epochs", "3",
    ];
    let output = succeed(dir.path(), &auto);
    assert!(stderr(&output).contains("Resuming runs/first/"), "{}", stderr(&output));
    let saved = fs::read_to_string(dir.path().join(config)).unwrap();
    assert!(
        saved.contains("epochs = 3") && !saved.contains("name = \"first\""),
        "{saved}"
    );
}

#[test]
fn resuming_gives_the_bytes_of_the_straight_run() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 3, 5, 2);
    succeed(
        dir.path(),
        &train(&["--epochs", "4", "--name", "straight", "--threads", "2"]),
    );
    succeed(
        dir.path(),
        &train(&["--epochs", "1", "--name", "stopped", "--threads", "1"]),
    );
    succeed(dir.path(), &["train", "--resume", "runs/stopped", "--epochs", "4"]);
    for file in ["best.safetensors", "predictions.png"] {
        assert!(
            read(dir.path(), "straight", file) == read(dir.path(), "stopped", file),
            "{file}"
        );
    }
    let tensors = |run| {
        let bytes = fs::read(newest(&dir.path().join("runs").join(run))).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut all: Vec<_> = file
            .iter()
            .map(|(name, view)| (name.to_owned(), view.data().to_vec()))
            .collect();
        all.sort();
        all
    };
    assert!(tensors("straight") == tensors("stopped"));
    // A finished run evaluates again and changes nothing.
    let file = newest(&dir.path().join("runs/straight"));
    let before = fs::read(&file).unwrap();
    succeed(dir.path(), &["train", "--resume", file.to_str().unwrap()]);
    assert!(fs::read(&file).unwrap() == before);
    for file in ["metrics.jsonl", "metrics.csv"] {
        let (straight, stopped) = (read(dir.path(), "straight", file), read(dir.path(), "stopped", file));
        // The first line of the log has the run's name.
        let lines = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes)
                .lines()
                .skip(1)
                .map(String::from)
                .collect::<Vec<_>>()
        };
        assert!(
            lines(&straight) == lines(&stopped) && lines(&straight).len() >= 4,
            "{file}"
        );
    }
}

#[test]
fn a_held_back_part_keeps_the_test_split_for_the_end() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 2, 10, 3);
    let output = succeed(
        dir.path(),
        &train(&["--epochs", "1", "--val-fraction", "0.2", "--limit", "8"]),
    );
    let log = stderr(&output);
    assert!(
        log.contains("Validation: 4 images that are neither trained on nor the test split")
            && log.contains("8 training and 6 test images"),
        "{log}"
    );
    assert!(stdout(&output).contains("6 test images"));
}

/// A folder of that name is no more than a folder.
#[test]
fn pictures_that_are_called_like_the_sample_are_not_taken_for_it() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("fashion-mnist-sample"), 2, 2, 1);
    let args = "train --data fashion-mnist-sample --width 1 --batch-size 4 --num-images 0 --name a";
    let output = succeed(dir.path(), &args.split(' ').collect::<Vec<_>>());
    assert!(stderr(&output).contains("Finished: 50 epochs"), "{}", stderr(&output));
}

#[test]
fn the_sample_is_trained_on_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "train",
        "--dataset",
        "fashion-mnist-sample",
        "--width",
        "1",
        "--epochs",
        "1",
        "--limit",
        "200",
        "-q",
    ];
    let output = succeed(dir.path(), &args);
    assert_eq!(stderr(&output), "", "-q leaves nothing but trouble");
    assert!(stdout(&output).contains("Ankle boot"));
    // The run remembers what it was trained on, and so do its weights where they lie elsewhere.
    let weights = "runs/fashion-mnist-sample-cnn-1/best.safetensors";
    fs::copy(dir.path().join(weights), dir.path().join("w.safetensors")).unwrap();
    for weights in [weights, "w.safetensors"] {
        assert_eq!(
            stdout(&succeed(dir.path(), &["evaluate", "--weights", weights])),
            stdout(&output)
        );
    }
}

#[test]
fn logs_for_machines_and_a_trace_for_viewers() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 2, 4, 2);
    let output = succeed(
        dir.path(),
        &train(&["--epochs", "1", "--log-format", "json", "--trace", "trace.json"]),
    );
    let events: Vec<serde_json::Value> = stderr(&output)
        .lines()
        .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
        .collect();
    assert!(
        events.iter().any(|e| e["val_accuracy"].is_number() && e["epoch"] == 1),
        "{events:?}"
    );
    let trace: Vec<serde_json::Value> =
        serde_json::from_slice(&fs::read(dir.path().join("trace.json")).unwrap()).unwrap();
    for name in ["run", "epoch", "step", "forward", "backward", "load", "evaluate"] {
        assert!(trace.iter().any(|e| e["name"] == name), "no span {name}");
    }
}

#[test]
fn the_configuration_file_speaks_of_logging_too() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 2, 4, 2);
    let toml = "data = \"pictures\"\nwidth = 1\nepochs = 1\nlog-format = \"json\"\ntrace = \"t.json\"\n";
    fs::write(dir.path().join("c.toml"), toml).unwrap();
    let output = succeed(dir.path(), &["train", "--config", "c.toml"]);
    assert!(
        stderr(&output).lines().all(|line| line.starts_with('{')),
        "{}",
        stderr(&output)
    );
    assert!(dir.path().join("t.json").is_file());
    let output = succeed(
        dir.path(),
        &[
            "train",
            "--config",
            "c.toml",
            "--log-format",
            "text",
            "--trace",
            "u.json",
        ],
    );
    assert!(stderr(&output).contains("\nEpoch [1/1] done"));
    assert!(dir.path().join("u.json").is_file());
}

#[test]
fn each_split_is_evaluated_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("pictures");
    write(&root, 2, 4, 2);
    succeed(dir.path(), &train(&["--epochs", "1", "--name", "a"]));
    let evaluate = |split: &str| {
        let weights = "runs/a/best.safetensors";
        let args = [
            "evaluate",
            "--weights",
            weights,
            "--data",
            "pictures",
            "--no-report",
            "--split",
            split,
        ];
        kestrel(dir.path(), &args)
    };
    // What a run validates on where there are no images for it.
    let none = evaluate("val");
    let text = stderr(&none);
    assert!(
        none.status.code() == Some(1)
            && text.contains("pictures has no validation images")
            && text.contains("--split test"),
        "{text}"
    );
    for class in ["class0", "class1"] {
        let val = root.join("val").join(class);
        fs::create_dir_all(&val).unwrap();
        fs::copy(root.join("test").join(class).join("0.png"), val.join("0.png")).unwrap();
    }
    for (name, said) in [
        ("train", "8 train images"),
        ("training", "8 train images"),
        ("val", "2 val images"),
        ("validation", "2 val images"),
        ("test", "4 test images"),
    ] {
        let output = evaluate(name);
        let text = stdout(&output);
        assert!(
            text.starts_with(&format!("Accuracy on the {said}: ")),
            "{name}: {text}{}",
            stderr(&output)
        );
    }
}

#[test]
fn help_and_version() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["--help"][..],
        &["train", "--help"],
        &["evaluate", "--help"],
        &["bench", "--help"],
        &["--version"],
    ] {
        assert!(!stdout(&succeed(dir.path(), args)).is_empty());
    }
    assert_eq!(kestrel(dir.path(), &[]).status.code(), Some(2));
}
