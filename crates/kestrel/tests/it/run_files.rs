//! What a run leaves in its folder, and how it is found again.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::pictures::{command, kestrel, newest, stderr, succeed, write};
use crate::train::train;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 2, 6, 3);
    dir
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn fails(folder: &Path, args: &[&str], code: i32, words: &[&str]) {
    let output = kestrel(folder, args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{args:?}: {word:?} in\n{text}");
    }
}

#[test]
fn a_run_writes_its_logs() {
    let dir = folder();
    succeed(dir.path(), &train(&["--epochs", "2", "--name", "a"]));
    let run = dir.path().join("runs/a");
    let metrics = lines(&run.join("metrics.jsonl"));
    let kinds: Vec<&str> = metrics.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["run", "step", "epoch", "step", "epoch"]);
    assert_eq!((&metrics[0]["schema"], &metrics[0]["name"]), (&1.into(), &"a".into()));
    assert_eq!(metrics[0]["classes"], serde_json::json!(["class0", "class1"]));
    assert_eq!(
        (&metrics[3]["step"], &metrics[3]["epoch"], &metrics[3]["batch"]),
        (&5.into(), &2.into(), &2.into())
    );
    assert!(metrics[3]["loss"].is_f64() && metrics[3]["grad_norm"].is_f64() && metrics[3]["lr"] == 0.01);
    for field in ["train_loss", "train_top1", "val_loss", "val_top1", "lr"] {
        assert!(metrics[4][field].is_f64(), "{field}");
    }
    assert!(metrics[2]["best"] == true && metrics[4]["stage"] == 1 && metrics[4]["step"] == 6);

    let csv = fs::read_to_string(run.join("metrics.csv")).unwrap();
    assert_eq!(csv.lines().count(), 3);
    assert!(
        csv.starts_with("epoch,step,lr,") && csv.contains("\n2,6,0.01,"),
        "{csv}"
    );
    let times = lines(&run.join("throughput.jsonl"));
    assert_eq!(times.len(), 2);
    for field in [
        "seconds",
        "images_per_second",
        "load",
        "forward",
        "backward",
        "optimizer",
        "validation",
    ] {
        assert!(times[1][field].is_number(), "{field}");
    }
    assert!(times[1]["images"] == 12 && times[1]["forward"].as_f64() > Some(0.0));
    let environment: Value = serde_json::from_slice(&fs::read(run.join("environment.json")).unwrap()).unwrap();
    for field in [
        "kestrel",
        "cpu",
        "threads",
        "instructions",
        "host",
        "started",
        "command",
        "seed",
    ] {
        assert!(!environment[field].is_null() || field == "cpu", "{field}");
    }
    let names: Vec<String> = fs::read_dir(&run)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let events: Vec<&String> = names
        .iter()
        .filter(|name| name.starts_with("events.out.tfevents."))
        .collect();
    assert_eq!(events.len(), 1, "{names:?}");
    let events = fs::read(run.join(events[0])).unwrap();
    for tag in ["loss/val", "accuracy/val", "lr", "brain.Event:2"] {
        assert!(
            events.windows(tag.len()).any(|window| window == tag.as_bytes()),
            "{tag}"
        );
    }
    assert!(!names.iter().any(|name| name.ends_with(".partial")), "{names:?}");
}

/// Only the program's own folder was another when the run began.
#[test]
fn a_run_is_evaluated_and_gone_on_with_from_any_folder() {
    let dir = folder();
    succeed(dir.path(), &train(&["--epochs", "1", "--name", "a"]));
    let elsewhere = tempfile::tempdir().unwrap();
    let run = dir.path().join("runs/a");
    let weights = run.join("best.safetensors");
    let evaluate = ["evaluate", "--no-report", "--weights", weights.to_str().unwrap()];
    succeed(elsewhere.path(), &evaluate);
    succeed(
        elsewhere.path(),
        &["train", "--epochs", "2", "--resume", run.to_str().unwrap()],
    );
    succeed(elsewhere.path(), &evaluate);
    // Moved along with its data, it is gone on with from there.
    let moved = tempfile::tempdir().unwrap();
    for name in ["runs", "pictures"] {
        fs::rename(dir.path().join(name), moved.path().join(name)).unwrap();
    }
    succeed(moved.path(), &["train", "--epochs", "3", "--resume", "runs/a"]);
    succeed(moved.path(), &["evaluate", "--weights", "runs/a/best.safetensors"]);
}

#[test]
fn auto_goes_on_with_the_newest_valid_checkpoint_and_says_what_it_passed_over() {
    let dir = folder();
    let args = [
        "--resume",
        "auto",
        "--name",
        "a",
        "--epochs",
        "3",
        "--checkpoint-every",
        "1",
        "--keep-last",
        "0",
    ];
    let first = succeed(dir.path(), &train(&args));
    assert!(stderr(&first).contains("a new one begins"));
    let run = dir.path().join("runs/a");
    let straight = fs::read(newest(&run)).unwrap();
    assert!(newest(&run).ends_with("step-00000009.safetensors"));
    let best = fs::read(run.join("best.safetensors")).unwrap();
    let log = fs::read(run.join("metrics.jsonl")).unwrap();
    // The newest two are damaged, and a process that was killed has left its scratch file.
    for (step, cut) in [(9, 100), (8, 5000)] {
        let path = run.join(format!("checkpoints/step-{step:08}.safetensors"));
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..cut]).unwrap();
    }
    let scratch = run.join("checkpoints/.step-00000010.safetensors.partial");
    fs::write(&scratch, "torn").unwrap();
    let again = succeed(dir.path(), &train(&args));
    let text = stderr(&again);
    for words in [
        "passed over: runs/a/checkpoints/step-00000009.safetensors",
        "passed over: runs/a/checkpoints/step-00000008.safetensors",
        "Resuming runs/a/checkpoints/step-00000007.safetensors: after epoch 2 of 3, batch 1 of the next, step 7",
    ] {
        assert!(text.contains(words), "{words:?} in\n{text}");
    }
    assert!(fs::read(newest(&run)).unwrap() == straight);
    assert!(fs::read(run.join("best.safetensors")).unwrap() == best);
    assert!(fs::read(run.join("metrics.jsonl")).unwrap() == log);
    assert!(!scratch.exists() && run.join("checkpoints/abandoned-step-00000009.safetensors").is_file());
    // Without a name, it is the run that was saved last.
    succeed(dir.path(), &train(&["--epochs", "1", "--name", "b"]));
    let last = succeed(dir.path(), &["train", "--resume", "auto"]);
    assert!(
        stderr(&last).contains("Resuming runs/b/checkpoints/"),
        "{}",
        stderr(&last)
    );
}

#[test]
fn going_on_from_an_older_checkpoint_sets_the_later_ones_aside() {
    let dir = folder();
    succeed(
        dir.path(),
        &train(&["--epochs", "3", "--name", "a", "--keep-last", "0", "--threads", "1"]),
    );
    let run = dir.path().join("runs/a");
    let straight = fs::read(run.join("metrics.jsonl")).unwrap();
    let output = succeed(
        dir.path(),
        &["train", "--resume", "runs/a/checkpoints/step-00000003.safetensors"],
    );
    assert_eq!(
        stderr(&output).matches("is set aside").count(),
        2,
        "{}",
        stderr(&output)
    );
    assert!(fs::read(run.join("metrics.jsonl")).unwrap() == straight);
}

#[test]
fn a_run_with_other_data_or_options_is_refused_and_each_difference_named() {
    let dir = folder();
    succeed(dir.path(), &train(&["--epochs", "1", "--name", "a"]));
    fails(
        dir.path(),
        &[
            "train",
            "--resume",
            "runs/a",
            "--lr",
            "0.5",
            "--width",
            "3",
            "--batch-size",
            "2",
        ],
        2,
        &[
            "--lr is 0.5 and was 0.01",
            "--width is 3 and was 2",
            "--batch-size is 2 and was 4",
        ],
    );
    for (split, which) in [("train", "training"), ("test", "validation")] {
        let class = dir.path().join("pictures").join(split).join("class1");
        fs::rename(class.join("0.png"), class.join("9.png")).unwrap();
        let named = format!("the {which} images' fingerprint is");
        fails(
            dir.path(),
            &["train", "--resume", "runs/a", "--epochs", "2"],
            1,
            &[&named, "step-00000003"],
        );
        fs::rename(class.join("9.png"), class.join("0.png")).unwrap();
    }
    succeed(
        dir.path(),
        &[
            "train",
            "--resume",
            "runs/a",
            "--epochs",
            "2",
            "--log-every",
            "1",
            "--keep-last",
            "1",
        ],
    );
}

#[test]
fn a_rate_that_explodes_leaves_a_dump_and_no_weights() {
    let dir = folder();
    let args = [
        "train",
        "--data",
        "pictures",
        "--width",
        "2",
        "--batch-size",
        "4",
        "--name",
        "a",
        "--lr",
        "1e30",
    ];
    let words = [
        "not finite at epoch 1",
        "gradient norm",
        "lr 1.000e30",
        "samples [",
        "runs/a/non-finite.json",
    ];
    fails(dir.path(), &args, 1, &words);
    let run = dir.path().join("runs/a");
    let dump: Value = serde_json::from_slice(&fs::read(run.join("non-finite.json")).unwrap()).unwrap();
    assert_eq!(dump["config"]["config"]["lr"], 1e30);
    assert!(!run.join("best.safetensors").exists());
}

#[test]
fn early_stopping_and_the_time_limit_end_well() {
    let dir = folder();
    let stopped = succeed(
        dir.path(),
        &train(&["--epochs", "500", "--name", "a", "--early-stopping-patience", "2"]),
    );
    let text = stderr(&stopped);
    assert!(
        text.contains("Early stopping: no better validation accuracy for 2 epochs"),
        "{text}"
    );
    assert!(text.contains("Finished: ") && !text.contains("Finished: 500"), "{text}");
    let limited = succeed(
        dir.path(),
        &train(&["--epochs", "100000", "--name", "b", "--max-time", "1s"]),
    );
    let text = stderr(&limited);
    assert!(text.contains("Stopped by --max-time after step"), "{text}");
    assert!(
        text.contains("go on with --resume runs/b") && limited.stdout.is_empty(),
        "{text}"
    );
    newest(&dir.path().join("runs/b"));
}

/// `cargo xtask` tells the program its commit.
#[test]
fn another_commit_is_refused_unless_it_is_allowed() {
    let dir = folder();
    let of_commit = |commit: &str, args: &[&str]| {
        let output = command(dir.path(), args)
            .env("KESTREL_COMMIT", commit)
            .output()
            .unwrap();
        (output.status.code(), stderr(&output))
    };
    let (code, text) = of_commit("aaa", &train(&["--epochs", "1", "--name", "a"]));
    assert_eq!(code, Some(0), "{text}");
    let resume = ["train", "--resume", "runs/a", "--epochs", "2"];
    let (code, text) = of_commit("bbb", &resume);
    assert!(
        code == Some(2) && text.contains("of commit bbb and was of aaa") && text.contains("--allow-code-change"),
        "{text}"
    );
    let (code, text) = of_commit("bbb", &[&resume[..], &["--allow-code-change"]].concat());
    assert!(
        code == Some(0) && text.contains("of commit bbb and was of aaa"),
        "{text}"
    );
}

/// A limit on the size of files is a disk that is full: the write fails in its midst.
#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_and_what_was_there_stays() {
    let dir = folder();
    succeed(dir.path(), &train(&["--epochs", "1", "--name", "a"]));
    let run = dir.path().join("runs/a");
    let (path, best) = (newest(&run), run.join("best.safetensors"));
    let before = (fs::read(&path).unwrap(), fs::read(&best).unwrap());
    // Whichever of the two is written first.
    let blocks = before.1.len() / 1024 / 2;
    // The signal would end the process, where a full disk is an error of the call.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" train --resume runs/a --epochs 2");
    let output = std::process::Command::new("bash")
        .args(["-c", &script, env!("CARGO_BIN_EXE_kestrel")])
        .current_dir(dir.path())
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("cannot write runs/a/") && text.contains("free space"),
        "{text}"
    );
    assert!(fs::read(&path).unwrap() == before.0 && fs::read(&best).unwrap() == before.1);
    for folder in [run.clone(), run.join("checkpoints")] {
        for entry in fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            assert!(!name.ends_with(".partial"), "{name}");
        }
    }
    succeed(dir.path(), &["train", "--resume", "runs/a", "--epochs", "2"]);
}
