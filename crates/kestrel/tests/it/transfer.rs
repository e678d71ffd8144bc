//! Fine-tuning whole: from a file that torch made to a file that torch takes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use candle_core::{DType, Device};
use kestrel_models::{Depth, Model, ResNet, ResNetConfig, StateDict, weights};
use kestrel_train::checkpoint::Weights;

use crate::pictures::{command, newest, stderr, stdout, succeed, write};

/// Writes torchvision's ResNet-18 of 1,000 classes as torch saved it (`scripts/golden/pth.py`); its path.
pub(crate) fn resnet18(folder: &Path) -> PathBuf {
    let packed = include_bytes!("../golden/resnet18_pattern.pth.gz");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .read_to_end(&mut bytes)
        .unwrap();
    let path = folder.join("resnet18.pth");
    fs::write(&path, bytes).unwrap();
    path
}

/// A folder of weights and of two classes of pictures, 8 to train on and 4 to test on.
pub(crate) fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("pictures"), 2, 4, 2);
    resnet18(dir.path());
    dir
}

/// Arguments of a small run of that name.
fn finetune<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let small = "finetune-resnet --weights resnet18.pth --data pictures --image-size 32 --batch-size 4 --num-images 0 \
                 --device cpu --name";
    let mut args: Vec<&str> = small.split(' ').collect();
    args.push(name);
    args.extend(more);
    args
}

/// A run's last checkpoint, for [`run_file`].
const CHECKPOINT: &str = "";

/// The values of every tensor of a file of a run, by name.
fn run_file(folder: &Path, run: &str, file: &str) -> BTreeMap<String, Vec<f32>> {
    let run = folder.join("runs").join(run);
    let path = if file == CHECKPOINT {
        newest(&run)
    } else {
        run.join(file)
    };
    values(&Weights::load(&path).unwrap().tensors)
}

fn values(dict: &StateDict) -> BTreeMap<String, Vec<f32>> {
    let floats = dict.iter().filter(|(_, tensor)| tensor.dtype().is_float());
    floats
        .map(|(name, tensor)| (name.clone(), tensor.flatten_all().unwrap().to_vec1().unwrap()))
        .collect()
}

/// The names whose values differ in the two.
fn changed(a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>) -> Vec<String> {
    assert!(a.keys().eq(b.keys()));
    a.keys().filter(|name| a[*name] != b[*name]).cloned().collect()
}

#[test]
fn the_head_alone_is_trained_then_layer4_with_it() {
    let dir = folder();
    let given = values(&weights::load(&dir.path().join("resnet18.pth")).unwrap().tensors);
    let log = stderr(&succeed(dir.path(), &finetune("head", &["--epochs", "2"])));
    for line in [
        "resnet18.pth: loaded 100 tensors; fc.bias is new, [2] instead of the file's [1000]; fc.weight is new, [2, 512]",
        "The last layer, fc, begins at random",
        "to epoch 2, fc is trained, 1026 of 11177538 parameters",
    ] {
        assert!(log.contains(line), "{line:?} in\n{log}");
    }
    let head = run_file(dir.path(), "head", CHECKPOINT);
    // Weights and running statistics, bit for bit.
    assert_eq!(changed(&given, &head), ["fc.bias", "fc.weight"]);

    let two = ["--epochs", "1", "--unfreeze", "layer4", "--unfreeze-epochs", "2"];
    let log = stderr(&succeed(dir.path(), &finetune("two", &two)));
    assert!(
        log.contains("Stage 1 of 2: to epoch 1, fc is") && log.contains("Stage 2 of 2: to epoch 3, layer4, fc is"),
        "{log}"
    );
    let two = run_file(dir.path(), "two", CHECKPOINT);
    let moved = changed(&given, &two);
    assert!(
        moved
            .iter()
            .all(|name| name.starts_with("layer4.") || name.starts_with("fc.")),
        "{moved:?}"
    );
    // 3 convolutions and norms each of two tensors and two statistics in the first block, 2 in the second, and the head.
    assert_eq!(moved.len(), 3 * 5 + 2 * 5 + 2);
}

/// One step of SGD without momentum moves each layer group by its rate times the same gradient.
#[test]
fn layers_nearer_the_input_are_moved_less() {
    let dir = folder();
    let sgd = "--freeze none --optimizer sgd --momentum 0 --lr 0.05 --batch-size 8 --epochs 1 --augment=false";
    let given = values(&weights::load(&dir.path().join("resnet18.pth")).unwrap().tensors);
    let moved = |name: &str, decay: &str| {
        let args: Vec<&str> = sgd.split(' ').chain(["--layer-lr-decay", decay]).collect();
        let mut args = finetune(name, &args);
        // The batch size is given twice otherwise.
        let at = args.iter().position(|arg| *arg == "--batch-size").unwrap();
        args.drain(at..at + 2);
        succeed(dir.path(), &args);
        let end = run_file(dir.path(), name, CHECKPOINT);
        let sum = |name: &str| -> f64 {
            let pairs = end[name].iter().zip(&given[name]);
            pairs.map(|(a, b)| f64::from((a - b).abs())).sum()
        };
        ["conv1.weight", "layer2.0.conv1.weight", "layer4.1.conv2.weight"].map(sum)
    };
    let (even, decayed) = (moved("even", "1"), moved("decayed", "0.5"));
    for ((even, decayed), share) in even.iter().zip(decayed).zip([32.0, 8.0, 2.0]) {
        assert!(
            (even / decayed / share - 1.0).abs() < 0.05,
            "{even} / {decayed}, not {share}"
        );
    }
}

#[test]
fn features_are_kept_for_the_same_weights_and_data_alone() {
    let dir = folder();
    let run = |name: &str, more: &[&str]| {
        let log = stderr(&succeed(dir.path(), &finetune(name, more)));
        let count = |what: &str| {
            log.lines()
                .filter(|line| line.starts_with("Features: ") && line.contains(what))
                .count()
        };
        (count("computed in"), count("kept from an earlier run"))
    };
    let views = ["--epochs", "2", "--cache-views", "2"];
    // Two views of the training images and one of the others.
    assert_eq!(run("first", &views), (3, 0));
    assert_eq!(run("again", &[&views[..], &["--lr", "0.1"]].concat()), (0, 3));
    // The trunk of a run that trained the head alone is the same.
    let head = ["--weights", "runs/first/best.safetensors"];
    let mut args = finetune("head", &views);
    args.drain(1..3);
    args.extend(head);
    let log = stderr(&succeed(dir.path(), &args));
    assert!(
        log.contains("kept from an earlier run") && !log.contains("computed in"),
        "{log}"
    );
    // Other draws of the augmentation, other images, other weights: nothing of them is used.
    assert_eq!(run("seed", &[&views[..], &["--seed", "1"]].concat()), (2, 1));
    let path = dir.path().join("pictures/train/class0/0.png");
    image::RgbImage::from_pixel(32, 32, image::Rgb([9, 9, 9]))
        .save(path)
        .unwrap();
    assert_eq!(run("image", &views), (2, 1));
    args.drain(args.len() - 2..);
    let other = ResNet::new(ResNetConfig::new(Depth::ResNet18, 1000), 7, DType::F32, &Device::Cpu).unwrap();
    let other = weights::export(&other.params().state_dict().unwrap()).unwrap();
    fs::write(dir.path().join("other.safetensors"), other).unwrap();
    args.extend(["--weights", "other.safetensors"]);
    let at = args.iter().position(|arg| *arg == "head").unwrap();
    args[at] = "other";
    let log = stderr(&succeed(dir.path(), &args));
    assert!(
        !log.contains("kept from an earlier run") && log.contains("computed in"),
        "{log}"
    );
    // A damaged file is computed again.
    for file in fs::read_dir(dir.path().join("data/features")).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }
    assert_eq!(run("damaged", &views), (3, 0));
}

/// Pictures whose files have one size, whatever is in them, change their places and keep the names.
#[test]
fn features_go_by_what_files_hold_and_not_by_their_names_and_sizes() {
    let dir = folder();
    let classes = ["class0", "class1"].map(|class| dir.path().join("pictures/train").join(class));
    for folder in &classes {
        for number in 0..4 {
            let png = folder.join(format!("{number}.png"));
            image::open(&png)
                .unwrap()
                .save(folder.join(format!("{number}.bmp")))
                .unwrap();
            fs::remove_file(png).unwrap();
        }
    }
    let run = |name: &str| {
        let log = stderr(&succeed(
            dir.path(),
            &finetune(name, &["--epochs", "1", "--augment=false"]),
        ));
        ["training", "validation"].map(|which| {
            let line = log
                .lines()
                .find(|line| line.starts_with("Features: ") && line.contains(which));
            line.unwrap().contains("kept from an earlier run")
        })
    };
    assert_eq!(run("first"), [false, false]);
    assert_eq!(run("again"), [true, true]);
    let kept = dir.path().join("kept");
    fs::rename(&classes[0], &kept).unwrap();
    fs::rename(&classes[1], &classes[0]).unwrap();
    fs::rename(&kept, &classes[1]).unwrap();
    assert_eq!(run("swapped"), [false, true]);
}

/// Gone on with from elsewhere, a run finds what lies where its downloads do.
#[test]
fn kept_features_are_found_from_any_folder() {
    let dir = folder();
    succeed(dir.path(), &finetune("a", &["--epochs", "1", "--augment=false"]));
    let elsewhere = tempfile::tempdir().unwrap();
    let run = dir.path().join("runs/a");
    let args = ["finetune-resnet", "--epochs", "2", "--resume", run.to_str().unwrap()];
    let log = stderr(&succeed(elsewhere.path(), &args));
    assert!(
        log.contains("kept from an earlier run") && !log.contains("computed in"),
        "{log}"
    );
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    let place = format!("data-dir = {:?}", dir.path().canonicalize().unwrap().join("data"));
    assert!(config.contains(&place), "{place} in\n{config}");
}

/// What a run says of its epochs, but for the times.
fn epochs(log: &str) -> Vec<String> {
    let events = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let epochs = events.filter(|event| event["val_accuracy"].is_number());
    epochs
        .map(|event| {
            let fields = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy"];
            fields.map(|field| event[field].to_string()).join(" ")
        })
        .collect()
}

#[test]
fn a_view_an_epoch_is_the_run_without_a_cache() {
    let dir = folder();
    for (name, augment, views, precision) in [
        ("augmented", "--augment", "3", "f32"),
        ("plain", "--augment=false", "1", "f32"),
        ("rounded", "--augment=false", "1", "bf16"),
    ] {
        let run = |name: &str, views: &str| {
            let args = ["--epochs", "3", augment, "--log-format", "json", "--cache-views", views];
            let args = [&args[..], &["--precision", precision]].concat();
            let output = succeed(dir.path(), &finetune(name, &args));
            (
                epochs(&stderr(&output)),
                stdout(&output),
                stderr(&output).contains("Features: "),
            )
        };
        let (cached, exact) = (run(name, views), run(&format!("{name}-0"), "0"));
        assert!(cached.2 && !exact.2);
        assert_eq!(cached.0.len(), 3);
        assert_eq!((cached.0, cached.1), (exact.0, exact.1));
        let file = |run: &str| run_file(dir.path(), run, CHECKPOINT);
        assert!(file(name) == file(&format!("{name}-0")));
    }
}

#[test]
fn a_stopped_run_goes_on_in_either_stage() {
    let dir = folder();
    let ends = |run: &str| run_file(dir.path(), run, CHECKPOINT);
    succeed(dir.path(), &finetune("straight", &["--epochs", "3"]));
    succeed(dir.path(), &finetune("stopped", &["--epochs", "1"]));
    let log = stderr(&succeed(
        dir.path(),
        &["finetune-resnet", "--resume", "runs/stopped", "--epochs", "3"],
    ));
    assert!(log.contains("after epoch 1 of 3"), "{log}");
    assert!(ends("straight") == ends("stopped"));

    let stages = "--epochs 1 --unfreeze layer4 --unfreeze-epochs 2";
    let stages: Vec<&str> = stages.split(' ').collect();
    succeed(dir.path(), &finetune("straight2", &stages));
    // Killed once an epoch of the first stage, and of the second, is on the disk.
    for (name, last) in [("first", 1), ("second", 2)] {
        let mut child = command(dir.path(), &finetune(name, &stages))
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let wanted = format!("Epoch [{last}/3] done");
        assert!(lines.any(|line| line.unwrap().contains(&wanted)));
        // It is written beside the training. An epoch has two steps.
        let folder = dir.path().join("runs").join(name).join("checkpoints");
        let file = format!("step-{:08}.safetensors", 2 * last);
        let is_there = || {
            let mut names = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name());
            names.any(|name| {
                name.to_str()
                    .is_some_and(|name| name.starts_with("step-") && name >= file.as_str())
            })
        };
        let started = Instant::now();
        while !is_there() {
            assert!(started.elapsed() < Duration::from_secs(120), "no {file}");
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        succeed(dir.path(), &["finetune-resnet", "--resume", &format!("runs/{name}")]);
        assert!(ends("straight2") == ends(name), "killed in epoch {}", last + 1);
    }
}

#[test]
fn an_export_is_torchs_state_dict_and_comes_back_with_its_head() {
    let dir = folder();
    succeed(dir.path(), &finetune("a", &["--epochs", "1"]));
    let output = succeed(
        dir.path(),
        &[
            "export",
            "--weights",
            "runs/a/best.safetensors",
            "--out",
            "a.safetensors",
        ],
    );
    let snippet = "import torchvision
from safetensors.torch import load_file
model = torchvision.models.resnet18(num_classes=2)
model.load_state_dict(load_file(\"a.safetensors\"))
model.eval()";
    assert_eq!(
        stdout(&output),
        format!("a.safetensors: resnet18 with 2 classes. In Python:\n\n{snippet}\n")
    );
    let exported = weights::load(&dir.path().join("a.safetensors")).unwrap();
    let given = weights::load(&dir.path().join("resnet18.pth")).unwrap();
    // Its counters too.
    assert!(exported.tensors.keys().eq(given.tensors.keys()));
    assert!(values(&exported.tensors) == run_file(dir.path(), "a", "best.safetensors"));

    let mut args = finetune("b", &["--epochs", "1", "--lr", "0", "--weights", "a.safetensors"]);
    args.drain(1..3);
    let log = stderr(&succeed(dir.path(), &args));
    assert!(
        log.contains("a.safetensors: loaded 102 tensors") && !log.contains("begins at random"),
        "{log}"
    );
    assert!(run_file(dir.path(), "a", "best.safetensors") == run_file(dir.path(), "b", "best.safetensors"));
}
