//! Damaged images in a data set: an error that names the file once, or a drop that is counted, to the end of a run.

use std::fs;
use std::path::{Path, PathBuf};

use crate::pictures::{kestrel, stderr, stdout, succeed, write};

/// Resizing, so that images are decoded whenever they are asked for and not when the data set is opened.
const TRANSFORMS: &str = r#"
train-transforms = [{ name = "Resize", size = [32, 32] }, { name = "ToTensor" }, { name = "Normalize", mean = [0.5, 0.5, 0.5], std = [0.2, 0.2, 0.2] }]
eval-transforms = [{ name = "Resize", size = [32, 32] }, { name = "ToTensor" }, { name = "Normalize", mean = [0.5, 0.5, 0.5], std = [0.2, 0.2, 0.2] }]
"#;

/// Two classes of ten test images each, two of them cut, with a trained run `a`.
fn trained() -> (tempfile::TempDir, [PathBuf; 2]) {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 2, 4, 10);
    fs::write(dir.path().join("c.toml"), TRANSFORMS).unwrap();
    let bad = ["class0/3.png", "class1/8.png"].map(|name| dir.path().join("pictures/test").join(name));
    for path in &bad {
        cut(path);
    }
    let args = ["train", "--data", "pictures", "--config", "c.toml", "--name", "a"];
    let skip = ["--on-bad-sample", "skip", "--max-bad-fraction", "0.1"];
    let small = ["--width", "1", "--epochs", "1", "--num-images", "3"];
    succeed(dir.path(), &[&args[..], &skip, &small].concat());
    (dir, bad)
}

fn cut(path: &Path) {
    let whole = fs::read(path).unwrap();
    fs::write(path, &whole[..whole.len() / 2]).unwrap();
}

#[test]
fn a_run_with_as_many_damaged_images_as_may_be_ends_well() {
    let (dir, _) = trained();
    assert!(dir.path().join("runs/a/predictions.png").is_file());
}

#[test]
fn evaluate_skips_when_asked_and_says_how_many() {
    let (dir, bad) = trained();
    let evaluate = |config: &[&str], more: &[&str]| {
        let args = ["evaluate", "--weights", "runs/a/best.safetensors", "--data", "pictures"];
        kestrel(dir.path(), &[&args[..], config, more].concat())
    };
    // Decoded when asked for, and decoded when opened.
    for config in [&["--config", "c.toml"][..], &[]] {
        let refused = evaluate(config, &[]);
        let text = stderr(&refused);
        assert_eq!(refused.status.code(), Some(1), "{text}");
        let name = "pictures/test/class0/3.png";
        assert_eq!(text.matches(name).count(), 1, "{text}");
        assert!(
            text.contains("is cut off") && text.contains("fetch or export it again"),
            "{text}"
        );

        let capped = evaluate(config, &["--on-bad-sample", "skip"]);
        let text = stderr(&capped);
        assert_eq!(capped.status.code(), Some(1), "{text}");
        assert!(text.contains("--max-bad-fraction") && text.contains("0.01"), "{text}");
    }
    // Whatever images the picture is of, the damaged ones are not among them and do not end the run.
    for seed in ["0", "1", "2", "3", "4", "5"] {
        let skip = ["--on-bad-sample", "skip", "--max-bad-fraction", "0.1"];
        let picture = ["--predictions", "p.png", "--num-images", "9", "--seed", seed];
        let output = evaluate(&["--config", "c.toml"], &[&skip[..], &picture].concat());
        assert!(output.status.success(), "seed {seed}: {}", stderr(&output));
        let text = stdout(&output);
        assert!(
            text.contains("the 18 test images") && text.contains("2 damaged images left out"),
            "{text}"
        );
        for path in &bad {
            let name = path.strip_prefix(dir.path()).unwrap().display().to_string();
            assert!(stderr(&output).contains(&name), "{name}: {}", stderr(&output));
        }
        let picture = image::open(dir.path().join("p.png")).unwrap();
        assert!(picture.width() > 0);
        fs::remove_file(dir.path().join("p.png")).unwrap();
    }
}

/// Decoded when the data set was opened, so that only those that are left have an index.
#[test]
fn images_left_out_when_they_were_opened_are_told_too() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 2, 4, 10);
    let args = "train --data pictures --name a --width 1 --epochs 1 --num-images 0";
    succeed(dir.path(), &args.split(' ').collect::<Vec<_>>());
    for name in ["class0/3.png", "class1/8.png"] {
        cut(&dir.path().join("pictures/test").join(name));
    }
    let args = "evaluate --weights runs/a/best.safetensors --on-bad-sample skip --max-bad-fraction 0.1";
    let text = stdout(&succeed(dir.path(), &args.split(' ').collect::<Vec<_>>()));
    assert!(
        text.contains("the 18 test images") && text.contains("2 damaged images left out"),
        "{text}"
    );
}
