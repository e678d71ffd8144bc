//! The report of a run, of an evaluation, and of several runs.

use std::fs;
use std::path::Path;

use crate::pictures::{kestrel, newest, stderr, stdout, succeed, trained};
use crate::serving::Serving;

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap()
}

/// Nothing is fetched from anywhere.
fn is_self_contained(page: &str) -> bool {
    // An SVG in HTML needs no name space, so there is no reason for any address.
    !["http:", "https:", "src=\"/", "@import", "url("]
        .iter()
        .any(|outside| page.contains(outside))
}

#[test]
fn a_run_ends_with_a_report() {
    let dir = trained();
    let run = dir.path().join("runs/a");
    let page = read(&run, "report.html");
    assert!(page.starts_with("<!DOCTYPE html>") && is_self_contained(&page));
    for part in [
        "<h1>a</h1>",
        "Confusion matrix",
        "Reliability",
        "Pred:",
        "True:",
        "Images by class",
        "augmented",
        "weight-decay",
    ] {
        assert!(page.contains(part), "{part}");
    }
    for figure in ["classes", "confusion", "reliability", "class_balance", "augmentations"] {
        let picture = image::open(run.join("figures").join(format!("{figure}.png"))).unwrap();
        assert!(picture.width() >= 600, "{figure} {}", picture.width());
    }
    let found: serde_json::Value = serde_json::from_str(&read(&run, "evaluation.json")).unwrap();
    assert_eq!(found["split"], "test");
    assert_eq!(found["top5"], serde_json::Value::Null);
    assert_eq!(found["reliability"].as_array().unwrap().len(), 15);
    let count = |value: &serde_json::Value| value.as_u64().unwrap();
    let counts = found["confusion"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap());
    assert_eq!(counts.map(count).sum::<u64>(), 12);
    assert_eq!(found["per_class"][1]["class"], "class1");
    assert_eq!(count(&found["per_class"][1]["support"]), 6);

    // The weight file carries the temperature that the evaluation used.
    let info = kestrel_train::checkpoint::Weights::load(&run.join("best.safetensors"))
        .unwrap()
        .info;
    assert_eq!(info.temperature, found["temperature"].as_f64());
    assert!(info.temperature.is_some());

    // Made again from what lies there, it is the same.
    let again = succeed(dir.path(), &["report", "runs/a"]);
    assert_eq!(stdout(&again).trim_end(), "runs/a/report.html");
    assert_eq!(read(&run, "report.html"), page);
}

#[test]
fn evaluate_says_the_same_as_a_table_and_as_json() {
    let dir = trained();
    let args = ["evaluate", "--weights", "runs/a/best.safetensors", "--data", "pictures"];
    let table = stdout(&succeed(dir.path(), &args));
    let json = stdout(&succeed(dir.path(), &[&args[..], &["--format", "json"]].concat()));
    let found: serde_json::Value = serde_json::from_str(&json).unwrap();
    let written: serde_json::Value =
        serde_json::from_str(&read(&dir.path().join("runs/a"), "evaluation.json")).unwrap();
    assert_eq!(found, written);
    let percent = |name: &str| format!("{:.2}%", 100.0 * found[name].as_f64().unwrap());
    assert!(
        table.contains(&format!("the 12 test images: {}", percent("top1"))),
        "{table}"
    );
    assert!(
        table.contains(&format!("calibration error: {}", percent("ece"))),
        "{table}"
    );
}

/// A run says what its weights were trained on, and where their report goes.
#[test]
fn weights_in_their_run_are_evaluated_on_its_images() {
    let dir = trained();
    let weights = "runs/a/best.safetensors";
    let named = succeed(dir.path(), &["evaluate", "--weights", weights, "--data", "pictures"]);
    let found = succeed(dir.path(), &["evaluate", "--weights", weights]);
    assert_eq!(stdout(&found), stdout(&named));
    let before = fs::metadata(dir.path().join("runs/a/evaluation.json"))
        .unwrap()
        .modified();
    let checkpoint = newest(&dir.path().join("runs/a"));
    succeed(dir.path(), &["evaluate", "--weights", checkpoint.to_str().unwrap()]);
    let after = fs::metadata(dir.path().join("runs/a/evaluation.json"))
        .unwrap()
        .modified();
    assert!(before.unwrap() < after.unwrap(), "the report is not the run's");
    assert_eq!(fs::read_dir(dir.path().join("runs")).unwrap().count(), 1);
}

/// Of one whole, what a run has held back is what its weights are evaluated on.
#[test]
fn of_one_whole_the_held_back_images_are_evaluated() {
    let dir = trained();
    fs::rename(dir.path().join("pictures/train"), dir.path().join("whole")).unwrap();
    let args = "train --data whole --val-fraction 0.25 --width 1 --epochs 1 --batch-size 8 --name b";
    let output = succeed(dir.path(), &args.split(' ').collect::<Vec<_>>());
    let evaluated = succeed(dir.path(), &["evaluate", "--weights", "runs/b/best.safetensors"]);
    assert!(
        stdout(&evaluated).contains("the 6 test images"),
        "{}",
        stdout(&evaluated)
    );
    assert_eq!(stdout(&evaluated), stdout(&output));
}

#[test]
fn an_evaluation_reports_where_it_is_told_to_and_not_where_it_is_not() {
    let dir = trained();
    fs::copy(
        dir.path().join("runs/a/best.safetensors"),
        dir.path().join("w.safetensors"),
    )
    .unwrap();
    let args = ["evaluate", "--weights", "w.safetensors", "--data", "pictures"];
    succeed(dir.path(), &[&args[..], &["--no-report"]].concat());
    assert_eq!(fs::read_dir(dir.path().join("runs")).unwrap().count(), 1);
    // Weights of no run get a folder of their own.
    succeed(dir.path(), &args);
    let page = read(&dir.path().join("runs/w-evaluation-1"), "report.html");
    assert!(page.contains("Evaluation") && is_self_contained(&page));
    succeed(
        dir.path(),
        &[&args[..], &["--report", "here/it/is", "--split", "train"]].concat(),
    );
    let found = read(&dir.path().join("here/it/is"), "evaluation.json");
    assert!(found.contains("\"split\":\"train\""), "{found}");
}

#[test]
fn several_runs_are_compared_in_one_page() {
    let dir = trained();
    let more = [
        "train",
        "--config",
        "runs/a/config.toml",
        "--name",
        "b<i>",
        "--lr",
        "0.02",
    ];
    succeed(dir.path(), &more);
    let output = succeed(dir.path(), &["report", "runs/a", "runs/b<i>"]);
    assert_eq!(stdout(&output).trim_end(), "runs/comparison.html");
    let page = read(dir.path(), "runs/comparison.html");
    assert!(page.contains("<h1>2 runs</h1>") && is_self_contained(&page));
    assert!(page.contains("b&lt;i&gt;") && !page.contains("b<i>"));
    assert!(
        page.contains(">lr</th>") && page.contains(">0.02</td>") && !page.contains(">width</th>"),
        "{page}"
    );
    // The page of an earlier comparison is no run.
    let all = [
        "report",
        "runs/a",
        "runs/b<i>",
        "runs/comparison.html",
        "--out",
        "c.html",
    ];
    succeed(dir.path(), &all);
    assert_eq!(read(dir.path(), "c.html"), page);
}

#[test]
fn a_run_is_watched_in_a_browser() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("a");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("config.toml"), "lr = 0.1").unwrap();
    let serving = Serving::start(dir.path(), &["watch", "a"]);
    // One that says nothing holds nobody up.
    let silent = serving.connect();
    assert!(!serving.get("/").text().contains("Learning"));
    let before = serving.get("/state");
    let epoch = r#"{"kind":"epoch","epoch":1,"train_loss":1.0,"train_top1":0.5,"val_loss":0.9,"val_top1":0.6}"#;
    fs::write(run.join("metrics.jsonl"), epoch).unwrap();
    assert_ne!(serving.get("/state").text(), before.text());
    let page = serving.get("/");
    assert!(page.status == 200 && page.text().contains("Learning") && page.text().contains("60.00%"));
    // The script that follows the run comes after the report's own.
    assert!(page.text().contains("/state") && page.text().ends_with("</html>\n"));
    for (line, status) in [("POST /", 405), ("GET /../a/config.toml", 404), ("GET /state?x", 200)] {
        assert_eq!(serving.ask(line, "", b"").status, status, "{line}");
    }
    drop(silent);
}

#[test]
fn what_is_no_run_is_told() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    for (args, code, word) in [
        (&["report", "empty"][..], 1, "holds nothing of a run"),
        (&["report", "none"], 1, "none"),
        (&["report", "empty", "--out", "x.html"], 2, "several runs"),
    ] {
        let output = kestrel(dir.path(), args);
        assert_eq!(output.status.code(), Some(code));
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
}
