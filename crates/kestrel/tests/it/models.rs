//! Networks that leave for other programs, and their tables.

use std::fs;
use std::path::Path;

use crate::pictures::{kestrel, stderr, stdout, succeed, write};

/// Trains a small CNN as `runs/a`.
fn trained(folder: &Path) {
    write(&folder.join("pictures"), 2, 4, 2);
    let args = "train --data pictures --width 2 --epochs 1 --batch-size 4 --num-images 0 --device cpu --name a";
    succeed(folder, &args.split(' ').collect::<Vec<_>>());
}

#[test]
fn an_export_goes_by_the_name_and_says_how_to_load_it() {
    let dir = tempfile::tempdir().unwrap();
    trained(dir.path());
    let export = |more: &[&str]| {
        let weights = ["export", "--weights", "runs/a/best.safetensors", "--out"];
        stdout(&succeed(dir.path(), &[&weights[..], more].concat()))
    };
    let text = export(&["a.onnx"]);
    assert!(
        text.starts_with("a.onnx: cnn with 2 classes. In Python:\n\nimport json, onnxruntime\n"),
        "{text}"
    );
    let onnx = fs::read(dir.path().join("a.onnx")).unwrap();
    // The version of the format, and who wrote it.
    assert!(onnx.starts_with(b"\x08\x09\x12\x07kestrel"));
    let text = export(&["a.safetensors"]);
    assert!(
        text.contains("from torch import nn\n") && text.contains("load_file(\"a.safetensors\")"),
        "{text}"
    );
    export(&["other", "--format", "onnx"]);
    assert!(fs::read(dir.path().join("other")).unwrap() == onnx);
    export(&["a.onnx", "--format", "safetensors"]);
    assert!(fs::read(dir.path().join("a.onnx")).unwrap() == fs::read(dir.path().join("a.safetensors")).unwrap());
}

#[test]
fn a_summary_has_a_row_for_each_layer_and_the_sums() {
    let dir = tempfile::tempdir().unwrap();
    let summary = |args: &str| {
        let args: Vec<&str> = ["model", "summary"]
            .into_iter()
            .chain(args.split_whitespace())
            .collect();
        stdout(&succeed(dir.path(), &args))
    };
    let text = summary("--model resnet18");
    assert!(
        text.ends_with(
            "resnet18, images of 224x224, 1000 classes: 11,689,512 parameters (46.8 MB in f32), 1.814 GMACs an image\n"
        ),
        "{text}"
    );
    let row = |name: &str| -> Vec<String> {
        let row = text.lines().find(|line| line.starts_with(name)).unwrap();
        row.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(row("conv1 "), ["conv1", "Conv2d", "64x112x112", "9,408", "118,013,952"]);
    assert_eq!(row("layer4.1.add"), ["layer4.1.add", "Add", "512x7x7"]);
    assert_eq!(row("fc "), ["fc", "Linear", "1000", "513,000", "512,000"]);
    assert!(summary("").contains("cnn, images of 32x32, 10 classes: 3,249,994 parameters"));
    let small = summary("--model resnet18 --stem cifar --num-classes 7 --format json");
    let small: serde_json::Value = serde_json::from_str(&small).unwrap();
    assert_eq!(
        small["layers"].as_array().unwrap().last().unwrap()["output"],
        serde_json::json!([7])
    );
    assert_eq!(small["parameters"], 11_172_423);

    trained(dir.path());
    let own = summary("--weights runs/a/best.safetensors");
    assert!(own.contains("cnn, images of 32x32, 2 classes"), "{own}");
    let output = kestrel(
        dir.path(),
        &["model", "summary", "--model", "resnet18", "--image-size", "8"],
    );
    let text = stderr(&output);
    assert!(
        output.status.code() == Some(2) && text.contains("image_size is 8"),
        "{text}"
    );
    let args = [
        "model",
        "summary",
        "--weights",
        "runs/a/best.safetensors",
        "--image-size",
        "48",
    ];
    let text = stderr(&kestrel(dir.path(), &args));
    assert!(
        text.contains("cnn cannot take images of 48 pixels") && text.contains("--image-size") && text.contains("fc1"),
        "{text}"
    );
}
