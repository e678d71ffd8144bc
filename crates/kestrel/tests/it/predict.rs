//! Predicting images that a person names.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::pictures::{kestrel, stderr, stdout, succeed, trained};

const PREDICT: [&str; 3] = ["predict", "--weights", "runs/a/best.safetensors"];

fn predict<'a>(more: &[&'a str]) -> Vec<&'a str> {
    PREDICT.iter().copied().chain(more.iter().copied()).collect()
}

/// Runs `kestrel predict ... -` with bytes on standard input.
fn piped(folder: &Path, bytes: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kestrel"))
        .args(predict(&["--format", "csv", "-"]))
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_file_a_folder_a_pattern_and_a_list_say_the_same() {
    let dir = trained();
    let folder = "pictures/test/class0";
    let table = stdout(&succeed(dir.path(), &predict(&[folder])));
    assert_eq!(table.lines().count(), 6);
    for (i, line) in table.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[0], format!("{folder}/{i}.png"), "{table}");
        // Two classes, whose probabilities are all there is.
        assert_eq!(words.len(), 5, "{line}");
        let percent = |word: &str| word.trim_end_matches('%').parse::<f64>().unwrap();
        let (first, second) = (percent(words[2]), percent(words[4]));
        assert!(first >= second && (first + second - 100.0).abs() < 0.02, "{line}");
    }
    let same = [
        stdout(&succeed(dir.path(), &predict(&["pictures/test/class0/*.png"]))),
        stdout(&succeed(dir.path(), &predict(&["--batch-size", "4", folder]))),
        stdout(&succeed(dir.path(), &predict(&["--threads", "1", folder]))),
    ];
    assert!(same.iter().all(|other| *other == table), "{same:?}\n{table}");
    let one = stdout(&succeed(dir.path(), &predict(&["pictures/test/class0/3.png"])));
    assert_eq!(Some(one.trim_end()), table.lines().nth(3));

    let csv = stdout(&succeed(dir.path(), &predict(&["--format", "csv", folder])));
    let list = "pictures/test/class0/0.png\npictures/test/class0/1.png\n";
    let listed = stdout(&piped(dir.path(), list.as_bytes()));
    assert!(
        csv.starts_with(&listed) && listed.lines().count() == 5,
        "{listed}\n{csv}"
    );
    let bytes = fs::read(dir.path().join("pictures/test/class0/0.png")).unwrap();
    let image = stdout(&piped(dir.path(), &bytes));
    assert_eq!(
        image.replace("\n-,", "\npictures/test/class0/0.png,"),
        listed
            .lines()
            .take(3)
            .fold(String::new(), |all, line| all + line + "\n")
    );
}

#[test]
fn json_is_one_document_of_the_classes_in_their_order() {
    let dir = trained();
    let output = succeed(
        dir.path(),
        &predict(&["--format", "json", "--top-k", "1", "pictures/test"]),
    );
    let images: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(images.len(), 12);
    let mut right = 0;
    for image in &images {
        let best = &image["predictions"][0];
        let class = best["class"].as_str().unwrap();
        right += usize::from(image["path"].as_str().unwrap().contains(class));
        let probability = best["probability"].as_f64().unwrap();
        assert!((0.5..=1.0).contains(&probability), "{image}");
        assert_eq!(image["predictions"].as_array().unwrap().len(), 1);
    }
    // What `evaluate` found of the same images.
    let found = fs::read(dir.path().join("runs/a/evaluation.json")).unwrap();
    let found: serde_json::Value = serde_json::from_slice(&found).unwrap();
    assert_eq!(found["top1"].as_f64().unwrap(), right as f64 / 12.0);
}

#[test]
fn pictures_of_other_sizes_are_brought_to_the_networks() {
    let dir = trained();
    let small = image::open(dir.path().join("pictures/test/class1/0.png")).unwrap();
    let large = small.resize_exact(320, 320, image::imageops::FilterType::Nearest);
    large.save(dir.path().join("large.png")).unwrap();
    large
        .crop_imm(0, 0, 320, 200)
        .save(dir.path().join("wide.bmp"))
        .unwrap();
    let output = succeed(dir.path(), &predict(&["--format", "csv", "large.png", "wide.bmp"]));
    assert_eq!(stdout(&output).lines().count(), 5);
    assert_eq!(stdout(&output).lines().next(), Some("path,rank,class,probability"));
}

#[test]
fn bad_images_are_named_and_the_others_are_predicted() {
    let dir = trained();
    let whole = fs::read(dir.path().join("pictures/test/class0/0.png")).unwrap();
    fs::write(dir.path().join("cut.png"), &whole[..whole.len() / 2]).unwrap();
    fs::write(dir.path().join("text.jpg"), "<html>").unwrap();
    let good = "pictures/test/class0/0.png";
    let names = ["cut.png", "text.jpg", "no-such.png"];
    for batch_size in ["1", "64"] {
        let args = ["--batch-size", batch_size, names[0], good, names[1], names[2], good];
        let output = kestrel(dir.path(), &predict(&args));
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stdout(&output).matches(good).count(), 2, "{}", stdout(&output));
        for name in names {
            assert!(
                stderr(&output).contains(name) && !stdout(&output).contains(name),
                "{}",
                stderr(&output)
            );
        }
        assert!(stderr(&output).contains("3 of 5 images"), "{}", stderr(&output));
    }
    let none = kestrel(dir.path(), &predict(&names));
    assert_eq!(none.status.code(), Some(1));
    assert!(
        stderr(&none).contains("3 of 3 images") && stdout(&none).is_empty(),
        "{}",
        stderr(&none)
    );
    let none = kestrel(dir.path(), &predict(&[&["--format", "json"], &names[..]].concat()));
    assert_eq!((none.status.code(), stdout(&none).as_str()), (Some(1), "[]\n"));
    for (args, word) in [
        (&["nothing/*.png"][..], "matches no file"),
        (&["runs/a/figures/none"], "1 of 1"),
    ] {
        let output = kestrel(dir.path(), &predict(args));
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(word), "{}", stderr(&output));
    }
}
