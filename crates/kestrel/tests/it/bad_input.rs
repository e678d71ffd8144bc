//! Bad input gets one message that says what, where and what to do, a code that is not zero, and loses nothing.

use std::fs;
use std::path::Path;

use crate::pictures::{command, kestrel, newest, stderr, succeed, trained, write, write_sized};

/// Runs `kestrel`, which must fail with `code` and a message that holds every one of `words`, on one `error:` line.
fn fail(folder: &Path, args: &[&str], code: i32, words: &[&str]) {
    let output = kestrel(folder, args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{args:?}: {word:?} in\n{text}");
    }
    assert_eq!(text.matches("error:").count(), 1, "{text}");
    assert!(!text.contains("panicked") && output.stdout.is_empty(), "{text}");
}

fn train(folder: &Path, more: &[&str], words: &[&str]) {
    fail(folder, &[&TRAIN[..], more].concat(), 1, words);
}

/// The same where the arguments alone are wrong.
fn misuse(folder: &Path, more: &[&str], words: &[&str]) {
    fail(folder, &[&TRAIN[..], more].concat(), 2, words);
}

const TRAIN: [&str; 5] = ["train", "--width", "1", "--epochs", "1"];

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 2, 3, 2);
    dir
}

#[test]
fn data_that_is_not_there_or_not_data() {
    let dir = folder();
    train(dir.path(), &["--data", "nowhere"], &["nowhere"]);
    fs::create_dir(dir.path().join("empty")).unwrap();
    train(dir.path(), &["--data", "empty"], &["empty", "train/<class>"]);
    fs::create_dir_all(dir.path().join("pictures/train/class2")).unwrap();
    train(dir.path(), &["--data", "pictures"], &["class2"]);
    fs::write(dir.path().join("pictures/train/class2/a.png"), "<html>").unwrap();
    train(dir.path(), &["--data", "pictures"], &["class2"]);
}

#[test]
fn a_cached_copy_that_nobody_vouches_for_is_not_replaced_in_silence() {
    let dir = folder();
    fs::create_dir_all(dir.path().join("data/cifar-10-batches-bin")).unwrap();
    train(dir.path(), &[], &["cifar-10-batches-bin", "--data"]);
}

#[test]
fn a_picture_that_is_cut_or_of_another_size_is_named() {
    let dir = folder();
    let path = dir.path().join("pictures/train/class1/1.png");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    train(dir.path(), &["--data", "pictures"], &["class1/1.png"]);
    image::RgbImage::new(16, 16).save(&path).unwrap();
    train(dir.path(), &["--data", "pictures"], &["class1/1.png", "16"]);
    fs::write(dir.path().join("cifar-10-binary.tar.gz"), [0x1f, 0x8b, 8, 0, 0, 0]).unwrap();
    train(
        dir.path(),
        &["--data", "cifar-10-binary.tar.gz"],
        &["cifar-10-binary.tar.gz"],
    );
}

#[test]
fn a_binary_folder_that_is_cut_or_has_a_label_out_of_range() {
    let dir = folder();
    let batches = dir.path().join("cifar-10-batches-bin");
    fs::create_dir(&batches).unwrap();
    let file = vec![0u8; 30_730_000];
    for name in [
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "test_batch.bin",
    ] {
        fs::write(batches.join(name), &file).unwrap();
    }
    fs::write(batches.join("data_batch_5.bin"), &file[..1000]).unwrap();
    train(
        dir.path(),
        &["--data", "cifar-10-batches-bin"],
        &["data_batch_5.bin", "30730000", "1000"],
    );
    let mut bad = file;
    bad[3073 * 7] = 10;
    fs::write(batches.join("data_batch_5.bin"), &bad).unwrap();
    train(
        dir.path(),
        &["--data", "cifar-10-batches-bin"],
        &["data_batch_5.bin", "label 10"],
    );
}

#[test]
fn options_that_do_not_exist_or_make_no_sense() {
    let dir = folder();
    fail(dir.path(), &["train", "--epocs", "3"], 2, &["--epocs", "--epochs"]);
    fail(
        dir.path(),
        &["train", "--dataset", "cifar11"],
        2,
        &["cifar11", "cifar10"],
    );
    fail(dir.path(), &["train", "--device", "gpu"], 2, &["gpu", "cuda"]);
    #[cfg(not(feature = "cuda"))]
    train(
        dir.path(),
        &["--data", "pictures", "--device", "cuda"],
        &["--features cuda", "--device cpu"],
    );
    train(
        dir.path(),
        &["--data", "pictures", "--device", "cpu", "--precision", "tf32"],
        &["tf32 is of NVIDIA's GPUs", "f32"],
    );
    misuse(
        dir.path(),
        &["--data", "pictures", "--dataset", "fashion-mnist-sample"],
        &["pictures", "--data"],
    );
    train(
        dir.path(),
        &["--data", "pictures", "--num-classes", "10"],
        &["num-classes is 10", "2"],
    );
    for (more, word) in [
        (&["--batch-size", "0"][..], "batch-size is 0"),
        (&["--lr=-1"], "lr is -1"),
        (&["--lr", "-1"], "lr is -1"),
        (&["--dropout", "-0.5"], "dropout is -0.5"),
        (&["--batch-size", "-1"], "invalid value '-1' for '--batch-size <N>'"),
        (
            &["--preprocessing", "imagenet", "--image-size", "20"],
            "image-size is 20, but for model cnn must be a multiple of 8",
        ),
        (
            &["--pretrained", "imagenet"],
            "pretrained is for resnet18 and resnet50, and the model is cnn",
        ),
        (&["--dropout", "1.5"], "dropout is 1.5"),
        (&["--lr-factor", "1"], "factor is 1"),
        (&["--seed", "18446744073709551615"], "seed is 18446744073709551615"),
        (
            &["--max-bad-fraction", "0.5"],
            "max-bad-fraction is for on-bad-sample skip",
        ),
        (&["--freeze", "block1"], "freeze is block1, but nothing is learned yet"),
        (&["--name", "x/y"], "name is \"x/y\""),
    ] {
        // Neither the data nor the network is looked at before.
        misuse(dir.path(), more, &[word]);
    }
    fail(
        dir.path(),
        &["finetune-resnet", "--data", "pictures"],
        2,
        &["freeze is backbone", "pretrained or weights"],
    );
    fail(dir.path(), &["train", "--find-lr-plot", "a.png"], 2, &["--find-lr"]);
    let widest = "9223372036854775807";
    fail(
        dir.path(),
        &["train", "--width", widest],
        2,
        &["width is 9223372036854775807"],
    );
    fail(
        dir.path(),
        &["model", "summary", "--num-classes", "18446744073709551615"],
        2,
        &["--num-classes"],
    );
    fs::write(dir.path().join("c.toml"), "epochs = 1\nwidht = 2\n").unwrap();
    misuse(dir.path(), &["--config", "c.toml"], &["c.toml", "line 2", "widht"]);
    misuse(dir.path(), &["--config", "none.toml"], &["none.toml"]);
    assert!(!dir.path().join("runs").exists(), "a refused run leaves no folder");
}

/// What a file names that is no option of a file, or no transform that a file can name.
#[test]
fn names_that_are_not_for_a_file() {
    let dir = folder();
    let file = |text: &str| fs::write(dir.path().join("c.toml"), text).unwrap();
    for option in ["resume", "allow-code-change", "find-lr", "find-lr-plot", "config"] {
        file(&format!("# By name.\nepochs = 1\n{option} = \"auto\"\n"));
        let words = ["c.toml: line 3: ", &format!("--{option} is for the command line alone")];
        misuse(dir.path(), &["--config", "c.toml"], &words);
    }
    for (name, more) in [("RandomFlip", ""), ("Custom", ", description = \"mine\"")] {
        file(&format!(
            "train-transforms = [\n    {{ name = \"{name}\"{more} }},\n    {{ name = \"ToTensor\" }},\n]\n"
        ));
        let said = format!("train-transforms has {name:?}");
        let words = [
            "c.toml: line 2: ",
            &said,
            "RandomHorizontalFlip, ",
            " or RandomChoice",
            "docs/guide.md",
        ];
        misuse(dir.path(), &["--config", "c.toml"], &words);
        let text = stderr(&kestrel(dir.path(), &["train", "--config", "c.toml"]));
        assert_eq!(text.contains("Custom"), name == "Custom", "{text}");
    }
}

/// The size of pictures is nothing that the user has set.
#[test]
fn pictures_of_a_size_that_the_network_cannot_have() {
    let dir = tempfile::tempdir().unwrap();
    let resized = "--preprocessing imagenet --image-size 32";
    for (size, said) in [
        ((28, 28), "the pictures of pictures28x28 are 28x28 pixels"),
        ((40, 24), "the pictures of pictures40x24 are 40x24 pixels"),
    ] {
        let name = format!("pictures{}x{}", size.0, size.1);
        write_sized(&dir.path().join(&name), 2, (3, 2), size);
        train(
            dir.path(),
            &["--data", &name],
            &[said, "multiple of 8", resized, "transforms"],
        );
        train(dir.path(), &["--data", &name, "--augment", "false"], &[said, resized]);
        let args = ["--data", &name, "--preprocessing", "imagenet", "--image-size", "32"];
        succeed(dir.path(), &[&TRAIN[..], &args].concat());
    }
    fail(
        dir.path(),
        &["train", "--data", "pictures28x28", "--model", "resnet18"],
        1,
        &["28x28", "at least 32", "the cifar stem's is 8", resized],
    );
    // Where a file names transforms, it is they that make the size.
    let steps = "{ name = \"ToTensor\" }, { name = \"Normalize\", mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }]\n";
    let transforms = |size: &str| {
        let first = format!("[{{ name = \"Resize\", size = {size} }}, ");
        let text = format!("train-transforms = {first}{steps}eval-transforms = {first}{steps}");
        fs::write(dir.path().join("c.toml"), text).unwrap();
    };
    for (size, said) in [
        ("28", "the transforms make images of 28x28 pixels"),
        ("[24, 40]", "the transforms make images of 40x24 pixels"),
    ] {
        transforms(size);
        let args = ["--data", "pictures28x28", "--config", "c.toml"];
        train(
            dir.path(),
            &args,
            &[said, "multiple of 8", "train-transforms and eval-transforms"],
        );
    }
    transforms("32");
    succeed(
        dir.path(),
        &[&TRAIN[..], &["--data", "pictures28x28", "--config", "c.toml"]].concat(),
    );
}

#[test]
fn a_run_folder_that_exists_or_cannot_be_written() {
    let dir = folder();
    let args = ["--data", "pictures", "--name", "a"];
    succeed(
        dir.path(),
        &[&["train", "--width", "1", "--epochs", "1"][..], &args].concat(),
    );
    let before = fs::read(newest(&dir.path().join("runs/a"))).unwrap();
    misuse(dir.path(), &args, &["runs/a", "--resume"]);
    // It is told before anything is opened.
    misuse(
        dir.path(),
        &["--data", "nowhere", "--name", "a"],
        &["runs/a", "--resume"],
    );
    assert!(fs::read(newest(&dir.path().join("runs/a"))).unwrap() == before);
    fs::write(dir.path().join("file"), "").unwrap();
    train(
        dir.path(),
        &["--data", "pictures", "--runs-dir", "file/x"],
        &["file/x", "--runs-dir"],
    );
}

#[test]
fn weights_and_checkpoints_that_do_not_fit() {
    let dir = folder();
    let small = ["train", "--data", "pictures", "--width", "1", "--epochs", "1"];
    succeed(dir.path(), &[&small[..], &["--name", "a"]].concat());
    let weights = "runs/a/best.safetensors";
    write(&dir.path().join("others"), 3, 2, 1);
    fail(
        dir.path(),
        &["evaluate", "--weights", weights, "--data", "others"],
        1,
        &[weights, "class2"],
    );
    fail(
        dir.path(),
        &["evaluate", "--weights", "none.safetensors"],
        1,
        &["none.safetensors"],
    );
    fs::write(dir.path().join("text.safetensors"), "hello").unwrap();
    fail(
        dir.path(),
        &["evaluate", "--weights", "text.safetensors"],
        1,
        &["text.safetensors"],
    );

    fail(dir.path(), &["train", "--resume", "nowhere"], 1, &["nowhere"]);
    fail(
        dir.path(),
        &["train", "--resume", weights],
        1,
        &[weights, "weights alone"],
    );
    fail(
        dir.path(),
        &["train", "--resume", "runs/a", "--width", "2"],
        2,
        &["--width is 2 and was 1"],
    );
    for (option, value) in [("--name", "b"), ("--runs-dir", "elsewhere")] {
        let args = ["train", "--resume", "runs/a", option, value];
        fail(dir.path(), &args, 2, &[option, "runs/a goes on where it is"]);
    }
    fail(
        dir.path(),
        &["train", "--resume", "runs/a", "--data", "others"],
        1,
        &["fingerprint", "--data"],
    );
    let path = newest(&dir.path().join("runs/a"));
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() - 9;
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    fail(
        dir.path(),
        &["train", "--resume", "runs/a"],
        1,
        &["runs/a/checkpoints/step-", "sha256"],
    );
}

/// What `kestrel export` has written is for other programs.
#[test]
fn an_export_for_pytorch_holds_no_network() {
    let dir = trained();
    let weights = "runs/a/best.safetensors";
    succeed(dir.path(), &["export", "--weights", weights, "--out", "e.safetensors"]);
    for args in [
        &["predict", "--weights", "e.safetensors", "pictures"][..],
        &["evaluate", "--weights", "e.safetensors", "--data", "pictures"],
        &["serve", "--weights", "e.safetensors", "--port", "0"],
        &["model", "summary", "--weights", "e.safetensors"],
        &["export", "--weights", "e.safetensors", "--out", "f.onnx"],
    ] {
        let words = [
            "e.safetensors has no record of its network",
            "exports for PyTorch",
            "best.safetensors",
        ];
        fail(dir.path(), args, 1, &words);
        let text = stderr(&kestrel(dir.path(), args));
        assert!(!text.contains("checkpoint") && !text.contains("older"), "{text}");
    }
}

#[test]
fn what_is_written_replaces_nothing_that_it_is_made_of() {
    let dir = trained();
    let weights = "runs/a/best.safetensors";
    let before = fs::read(dir.path().join(weights)).unwrap();
    let out = "runs/../runs/a/best.safetensors";
    fail(
        dir.path(),
        &["export", "--weights", weights, "--out", out],
        2,
        &["--out is the file that --weights names"],
    );
    assert!(fs::read(dir.path().join(weights)).unwrap() == before);
    let log = fs::read(dir.path().join("runs/a/metrics.jsonl")).unwrap();
    fail(
        dir.path(),
        &["report", "runs/a", "runs/a", "--out", "runs/a/metrics.jsonl"],
        2,
        &["runs/a/metrics.jsonl is there and is no page", "--out"],
    );
    assert!(fs::read(dir.path().join("runs/a/metrics.jsonl")).unwrap() == log);
    // A file's name says what is in it.
    for out in ["a.pt", "a"] {
        fail(
            dir.path(),
            &["export", "--weights", weights, "--out", out],
            2,
            &[&format!("--out is {out},"), "a.safetensors", ".onnx", "--format"],
        );
        assert!(!dir.path().join(out).exists());
    }
    // Below a file there is no room, however much space is free.
    let out = format!("{weights}/a.onnx");
    let args = ["export", "--weights", weights, "--out", &out];
    fail(dir.path(), &args, 1, &[&out, "a part of its path is a file"]);
    // A page is written again.
    for _ in 0..2 {
        succeed(dir.path(), &["report", "runs/a", "runs/a", "--out", "page.html"]);
    }
}

/// Of their own weights a run's data are known; of others somebody must name them.
#[test]
fn weights_without_their_run_are_not_evaluated_on_other_images() {
    let dir = trained();
    fs::copy(
        dir.path().join("runs/a/best.safetensors"),
        dir.path().join("w.safetensors"),
    )
    .unwrap();
    fail(
        dir.path(),
        &["evaluate", "--weights", "w.safetensors"],
        2,
        &["class0, class1", "--data"],
    );
    fs::rename(dir.path().join("pictures"), dir.path().join("moved")).unwrap();
    fail(
        dir.path(),
        &["evaluate", "--weights", "runs/a/best.safetensors"],
        1,
        &["pictures", "config.toml", "--data"],
    );
    fail(
        dir.path(),
        &["train", "--resume", "runs/a", "--epochs", "3"],
        1,
        &["pictures", "say with --data where they are now"],
    );
    let moved = ["train", "--resume", "runs/a", "--epochs", "3", "--data", "moved"];
    succeed(dir.path(), &moved);
    succeed(dir.path(), &["evaluate", "--weights", "runs/a/best.safetensors"]);
}

/// An argument that is not UTF-8 cannot be saved with the run, and is named.
#[cfg(target_os = "linux")]
#[test]
fn arguments_that_are_not_utf_8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let dir = trained();
    let odd = OsStr::from_bytes(b"d\xff");
    let mut command = command(dir.path(), &["train", "--data"]);
    let output = command.arg(odd).output().unwrap();
    let text = stderr(&output);
    assert!(
        output.status.code() == Some(2) && text.contains("data is d") && text.contains("not UTF-8"),
        "{text}"
    );
    // A folder may be called so.
    fs::rename(dir.path().join("runs/a"), dir.path().join("runs").join(odd)).unwrap();
    let mut command = crate::pictures::command(dir.path(), &["train", "--epochs", "3", "--resume"]);
    let output = command.arg(Path::new("runs").join(odd)).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}
