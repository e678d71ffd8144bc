//! Weights and images that cannot be fine-tuned: one message that says what, where and what to do, and nothing is left behind.

use std::fs;
use std::io::Write;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use kestrel_models::{Depth, Model, ResNet, ResNetConfig, StateDict, weights};

use crate::pictures::{kestrel, stderr, write};
use crate::transfer;

/// Fine-tunes with these options, which must fail with a message that has all of `words`.
fn refused(folder: &Path, options: &str, words: &[&str]) {
    fails(folder, options, 1, words);
}

/// The same with an exit code.
fn fails(folder: &Path, options: &str, code: i32, words: &[&str]) {
    let args: Vec<&str> = ["finetune-resnet"].into_iter().chain(options.split(' ')).collect();
    let output = kestrel(folder, &args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{options}: {text}");
    for word in words {
        assert!(text.contains(word), "{options}: {word:?} in\n{text}");
    }
    assert_eq!(text.matches("error:").count(), 1, "{text}");
    assert!(!text.contains("panicked") && output.stdout.is_empty(), "{text}");
    assert!(!folder.join("runs").exists(), "a refused run leaves no folder");
}

fn state_dict(config: ResNetConfig) -> StateDict {
    let model = ResNet::new(config, 0, DType::F32, &Device::Cpu).unwrap();
    model.params().state_dict().unwrap()
}

fn save(folder: &Path, name: &str, dict: &StateDict) {
    fs::write(folder.join(name), weights::export(dict).unwrap()).unwrap();
}

fn zeros(dims: &[usize]) -> Tensor {
    Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn files_that_are_not_there_or_hold_no_weights() {
    let dir = transfer::folder();
    refused(
        dir.path(),
        "--data pictures --weights none.pth",
        &["none.pth", "No such file"],
    );
    let whole = fs::read(dir.path().join("resnet18.pth")).unwrap();
    fs::write(dir.path().join("cut.pth"), &whole[..whole.len() / 2]).unwrap();
    refused(
        dir.path(),
        "--data pictures --weights cut.pth",
        &[
            "cut.pth is not a weight file",
            "cut off or damaged",
            "fetch or save it again",
        ],
    );
    fs::write(dir.path().join("text.pth"), "hello").unwrap();
    refused(
        dir.path(),
        "--data pictures --weights text.pth",
        &[
            "text.pth is not a weight file",
            "neither safetensors",
            "torch.save (.pth, .pt)",
        ],
    );
    fs::write(
        dir.path().join("old.pth"),
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
    )
    .unwrap();
    refused(
        dir.path(),
        "--data pictures --weights old.pth",
        &["old.pth", "before version 1.6", "torch.save(torch.load("],
    );
    refused(
        dir.path(),
        "--data pictures --weights https://127.0.0.1:9/resnet18.pth",
        &["resnet18.pth", "8 digits of their sha256", "name the file"],
    );
}

#[test]
fn a_pickle_that_calls_a_program_calls_nothing() {
    let dir = transfer::folder();
    let command = b"touch witness";
    let pickle = [
        b"\x80\x02cos\nsystem\nX".as_slice(),
        &(command.len() as u32).to_le_bytes(),
        command,
        b"\x85R.",
    ]
    .concat();
    let mut zip = zip::ZipWriter::new(fs::File::create(dir.path().join("evil.pth")).unwrap());
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("evil/data.pkl", stored).unwrap();
    zip.write_all(&pickle).unwrap();
    zip.finish().unwrap();
    refused(
        dir.path(),
        "--data pictures --weights evil.pth",
        &["evil.pth asks for os.system", "nothing of it was run", "state_dict()"],
    );
    assert!(!dir.path().join("witness").exists());
}

#[test]
fn one_error_lists_every_tensor_that_does_not_fit() {
    let dir = transfer::folder();
    let mut dict = state_dict(ResNetConfig::new(Depth::ResNet18, 1000));
    dict.remove("layer1.0.bn1.running_mean");
    dict.remove("layer3.0.downsample.0.weight");
    dict.insert("layer5.weight".to_owned(), zeros(&[1]));
    // One channel instead of three, and a matrix on its side.
    dict.insert("conv1.weight".to_owned(), zeros(&[64, 1, 7, 7]));
    dict.insert("fc.weight".to_owned(), zeros(&[512, 1000]));
    save(dir.path(), "wrong.safetensors", &dict);
    refused(
        dir.path(),
        "--data pictures --weights wrong.safetensors",
        &[
            "wrong.safetensors",
            "nothing was loaded",
            "missing layer1.0.bn1.running_mean, layer3.0.downsample.0.weight",
            "unexpected layer5.weight",
            "conv1.weight: expected F32 [64, 3, 7, 7], got F32 [64, 1, 7, 7]",
            "fc.weight: expected F32 [2, 512], got F32 [512, 1000]",
        ],
    );
}

#[test]
fn weights_of_another_network_are_named() {
    let dir = transfer::folder();
    let small = state_dict(ResNetConfig::cifar(Depth::ResNet18, 10));
    save(dir.path(), "small.safetensors", &small);
    refused(
        dir.path(),
        "--data pictures --weights small.safetensors",
        &["small.safetensors", "--model resnet18 --stem cifar", "conv1.weight"],
    );
    let parallel = small
        .into_iter()
        .map(|(name, tensor)| (format!("module.{name}"), tensor))
        .collect();
    save(dir.path(), "parallel.safetensors", &parallel);
    refused(
        dir.path(),
        "--data pictures --stem cifar --weights parallel.safetensors",
        &["parallel.safetensors", "DataParallel", "model.module.state_dict()"],
    );
}

#[test]
fn images_and_classes_that_cannot_be_trained_on() {
    let dir = transfer::folder();
    for (size, options) in [("16", ""), ("31", ""), ("7", "--stem cifar ")] {
        fails(
            dir.path(),
            &format!("--data pictures {options}--weights resnet18.pth --image-size {size}"),
            2,
            &[&format!("image-size is {size}"), "the network's stride"],
        );
    }
    fails(
        dir.path(),
        "--data pictures --weights resnet18.pth --image-size 32 --freeze layer9",
        2,
        &["layer9", "stem, layer1"],
    );
    write(&dir.path().join("one"), 1, 4, 2);
    refused(
        dir.path(),
        "--data one --weights resnet18.pth",
        &["one class (class0)", "at least two"],
    );
}
