//! Training methods by their options.

use std::fs;
use std::path::Path;

use crate::pictures::{kestrel, stderr, stdout, succeed, write};

const SMALL: [&str; 12] = [
    "train",
    "--data",
    "pictures",
    "--width",
    "1",
    "--batch-size",
    "4",
    "--num-images",
    "0",
    "--device",
    "cpu",
    "--lr=0.01",
];

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 3, 5, 2);
    dir
}

fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    SMALL.iter().copied().chain(more.iter().copied()).collect()
}

fn checkpoint(folder: &Path, run: &str) -> Vec<(String, Vec<u8>)> {
    let bytes = fs::read(crate::pictures::newest(&folder.join("runs").join(run))).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<_> = file
        .iter()
        .map(|(name, view)| (name.to_owned(), view.data().to_vec()))
        .collect();
    all.sort();
    all
}

/// Each of these is stopped after its first epoch and resumed, and must end with the straight run's tensors.
#[test]
fn runs_of_every_optimiser_and_scheduler_resume() {
    let dir = folder();
    let cases: [&[&str]; 6] = [
        &[
            "--optimizer",
            "sgd",
            "--nesterov",
            "--scheduler",
            "step",
            "--lr-step-size",
            "1",
            "--accumulate",
            "2",
        ],
        &[
            "--optimizer",
            "adamw",
            "--no-decay-norm-bias",
            "--scheduler",
            "one-cycle",
            "--t-max",
            "12",
            "--lr-interval",
            "step",
        ],
        &[
            "--optimizer",
            "rmsprop",
            "--centered",
            "--scheduler",
            "multi-step",
            "--milestones",
            "1,2",
            "--ema",
            "0.9",
        ],
        &[
            "--optimizer",
            "lion",
            "--scheduler",
            "cosine",
            "--t-max",
            "3",
            "--swa-start",
            "2",
            "--clip-grad-value",
            "0.1",
        ],
        &[
            "--optimizer",
            "muon",
            "--scheduler",
            "cosine-restarts",
            "--t-max",
            "2",
            "--warmup",
            "3",
            "--warmup-interval",
            "step",
        ],
        &[
            "--lookahead",
            "2",
            "--loss",
            "focal",
            "--loss-class-weights",
            "class1=0.5,class2=2",
            "--clip-grad-norm",
            "1",
            "--scheduler",
            "constant",
        ],
    ];
    for (i, case) in cases.into_iter().enumerate() {
        let (straight, stopped) = (format!("straight{i}"), format!("stopped{i}"));
        succeed(
            dir.path(),
            &train(&[case, &["--epochs", "3", "--name", &straight]].concat()),
        );
        succeed(
            dir.path(),
            &train(&[case, &["--epochs", "1", "--name", &stopped]].concat()),
        );
        succeed(
            dir.path(),
            &["train", "--resume", &format!("runs/{stopped}"), "--epochs", "3"],
        );
        assert!(
            checkpoint(dir.path(), &straight) == checkpoint(dir.path(), &stopped),
            "{case:?}"
        );
    }
}

#[test]
fn a_configuration_file_gives_the_run_again() {
    let dir = folder();
    let more = [
        "--epochs",
        "1",
        "--scheduler",
        "multi-step",
        "--milestones",
        "1,2",
        "--label-smoothing",
        "0.1",
    ];
    let output = succeed(dir.path(), &train(&more));
    let again = succeed(dir.path(), &["train", "--config", "runs/pictures-cnn-1/config.toml"]);
    assert_eq!(stdout(&output), stdout(&again));
}

/// Images and targets are mixed where the file says so, with any loss, and a stopped run goes on with the same mixtures.
#[test]
fn mixup_and_cutmix_train_and_resume() {
    let dir = folder();
    let common = r#"{ name = "ToTensor" }, { name = "Normalize", mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }"#;
    let mixtures = [
        ("plain", ""),
        ("mixup", r#", { name = "MixUp", alpha = 0.4 }"#),
        ("cutmix", r#", { name = "CutMix" }"#),
        (
            "either",
            r#", { name = "RandomChoice", transforms = [{ name = "MixUp" }, { name = "CutMix" }] }"#,
        ),
    ];
    for (file, mixture) in mixtures {
        let toml = format!("train-transforms = [{common}{mixture}]\neval-transforms = [{common}]\n");
        fs::write(dir.path().join(file).with_extension("toml"), toml).unwrap();
    }
    let run = |config: &str, epochs: &str, name: &str, more: &[&str]| {
        let config = format!("{config}.toml");
        let run = ["--config", &config, "--epochs", epochs, "--name", name];
        succeed(dir.path(), &train(&[&run[..], more].concat()));
    };
    let smooth = ["--label-smoothing", "0.1", "--loss-class-weights", "class2=2"];
    for (config, _) in mixtures {
        run(config, "2", config, &smooth);
        run(config, "1", &format!("{config}-stopped"), &smooth);
        let stopped = format!("runs/{config}-stopped");
        succeed(dir.path(), &["train", "--resume", &stopped, "--epochs", "2"]);
        assert!(
            checkpoint(dir.path(), config) == checkpoint(dir.path(), &format!("{config}-stopped")),
            "{config}"
        );
        if config != "plain" {
            assert!(
                checkpoint(dir.path(), config) != checkpoint(dir.path(), "plain"),
                "{config}"
            );
        }
    }
    run("either", "1", "focal", &["--loss", "focal", "--accumulate", "2"]);
}

#[test]
fn values_that_methods_do_not_take_are_refused_before_a_folder_is_made() {
    let dir = folder();
    let cases: [(&[&str], &str); 22] = [
        (&["--optimizer", "sgd", "--momentum=-1"], "momentum is -1"),
        (
            &["--optimizer", "sgd", "--nesterov", "--momentum", "0"],
            "momentum is 0",
        ),
        (&["--optimizer", "rmsprop", "--alpha", "1.5"], "alpha is 1.5"),
        (&["--lookahead", "3", "--lookahead-alpha", "2"], "lookahead-alpha is 2"),
        (&["--scheduler", "multi-step"], "milestones is []"),
        (&["--scheduler", "step", "--lr-step-size", "0"], "lr-step-size is 0"),
        (&["--scheduler", "one-cycle", "--pct-start", "2"], "pct-start is 2"),
        (&["--warmup", "1"], "warmup is 1"),
        (
            &["--warmup", "1", "--warmup-interval", "step", "--warmup-factor", "0"],
            "warmup-factor is 0",
        ),
        (&["--loss-class-weights", "cat=2"], "loss-class-weights names \"cat\""),
        (&["--loss-class-weights", "class0=-1"], "loss-class-weights is [-1"),
        (&["--clip-grad-norm", "0"], "clip-grad-norm is 0"),
        (&["--nesterov"], "nesterov is for optimizer sgd"),
        (&["--lr-interval", "step"], "lr-interval is for a scheduler that counts"),
        (
            &["--lr-patience", "9", "--scheduler", "step"],
            "lr-patience is for scheduler plateau",
        ),
        (&["--ema", "1.5"], "ema is 1.5"),
        (
            &["--optimizer", "sgd", "--beta1", "0.5"],
            "beta1 is for optimizer adam, adamw, lion or muon",
        ),
        (&["--optimizer", "lion", "--eps", "5"], "eps is for optimizer adam"),
        (&["--momentum", "0.1"], "momentum is for optimizer sgd"),
        (
            &["--scheduler", "cosine", "--lr-factor", "0.5"],
            "lr-factor is for scheduler plateau",
        ),
        (
            &["--scheduler", "step", "--min-lr", "0.5"],
            "min-lr is for scheduler plateau",
        ),
        (
            &["--scheduler", "constant", "--lr-factor", "0.5"],
            "lr-factor is for scheduler plateau",
        ),
    ];
    for (case, word) in cases {
        let output = kestrel(dir.path(), &train(&[&["--epochs", "1"][..], case].concat()));
        let text = stderr(&output);
        // What depends on the classes is known when the data are open.
        let code = if case[0] == "--loss-class-weights" { 1 } else { 2 };
        assert_eq!(output.status.code(), Some(code), "{case:?}: {text}");
        assert!(
            text.contains(word) && !text.contains("panicked"),
            "{case:?}: {word:?} in\n{text}"
        );
    }
    let output = kestrel(dir.path(), &train(&["--optimizer", "adagrad"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("adamw"));
}

#[test]
fn the_range_test_draws_and_the_views_are_averaged() {
    let dir = folder();
    let output = succeed(dir.path(), &train(&["--find-lr", "--find-lr-plot", "lr.png"]));
    assert!(
        stdout(&output).starts_with("Suggested learning rate: "),
        "{}",
        stdout(&output)
    );
    let muon = succeed(dir.path(), &train(&["--find-lr", "--optimizer", "muon"]));
    assert!(stdout(&muon).contains(" --muon-lr "), "{}", stdout(&muon));
    assert!(image::open(dir.path().join("lr.png")).unwrap().width() > 400);
    assert!(!dir.path().join("runs").exists(), "nothing was trained");

    // A pattern that looks different from every side.
    for (i, class) in (0u32..).zip(["class0", "class1", "class2"]) {
        let ramp = |x: u32, y: u32| image::Rgb([(x * 8) as u8, (y * x / 4) as u8, (80 * i + y) as u8]);
        let path = dir.path().join("pictures/test").join(class).join("0.png");
        image::RgbImage::from_fn(32, 32, ramp).save(path).unwrap();
    }
    let wide = [
        "train",
        "--data",
        "pictures",
        "--width",
        "4",
        "--batch-size",
        "4",
        "--num-images",
        "0",
        "--lr=0.01",
    ];
    succeed(
        dir.path(),
        &[&wide[..], &["--device", "cpu", "--epochs", "8", "--name", "a"]].concat(),
    );
    let evaluate = |tta| {
        let weights = "runs/a/best.safetensors";
        stdout(&succeed(
            dir.path(),
            &["evaluate", "--weights", weights, "--data", "pictures", "--tta", tta],
        ))
    };
    let answers = ["none", "flip", "multi-crop"].map(evaluate);
    assert!(
        answers.iter().all(|a| a.starts_with("Accuracy on the 6 test images")),
        "{answers:?}"
    );
    assert!(answers[0] != answers[1] && answers[1] != answers[2], "{answers:?}");
}
