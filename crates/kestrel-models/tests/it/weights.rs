//! Weights in and out: a new head, every difference in one error, exports.

use candle_core::{DType, Device, Tensor};
use kestrel_models::weights::{export, load};
use kestrel_models::{Depth, Error, Mode, Model, Replaced, ResNet, ResNetConfig, StateDict, is_buffer};

use crate::cnn_golden::values;
use crate::formula::{fill, images};

fn resnet(num_classes: usize, seed: u64) -> ResNet {
    let config = ResNetConfig::cifar(Depth::ResNet18, num_classes);
    ResNet::new(config, seed, DType::F32, &Device::Cpu).unwrap()
}

fn unchanged(model: &ResNet, before: &StateDict) -> bool {
    let mut all = model.params().all().into_iter();
    all.all(|(name, var)| values(&var) == values(&before[&name]))
}

#[test]
fn an_export_is_taken_whole_and_gives_the_same_logits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resnet18.safetensors");
    let (model, other) = (resnet(3, 0), resnet(3, 1));
    fill(model.params(), DType::F32, 6.0);
    std::fs::write(&path, export(&model.params().state_dict().unwrap()).unwrap()).unwrap();
    let file = load(&path).unwrap();
    // 62 parameters, 40 running statistics, 20 counters: torchvision's state dict.
    assert_eq!(file.tensors.len(), 122);
    other.params().load_state_dict(&file.tensors).unwrap();
    let images = images(2, 16, DType::F32);
    let logits = [&model, &other].map(|model| values(&model.forward(&images, Mode::Eval).unwrap()));
    assert_eq!(logits[0], logits[1]);
}

#[test]
fn a_head_for_other_classes_is_replaced_when_asked_for_and_reported() {
    let (pretrained, model) = (resnet(7, 0), resnet(3, 1));
    let dict = pretrained.params().state_dict().unwrap();
    let before = model.params().state_dict().unwrap();
    let Err(Error::StateDict(mismatch)) = model.params().load_state_dict(&dict) else {
        panic!("must be refused")
    };
    assert_eq!(mismatch.mismatched.len(), 2);
    assert!(unchanged(&model, &before));

    let report = model.params().load_with_new_head(&dict, model.head()).unwrap();
    let replaced = |name: &str, expected: &[usize], got: &[usize]| Replaced {
        name: name.to_owned(),
        expected: expected.to_vec(),
        got: got.to_vec(),
    };
    assert_eq!(report.loaded, 100);
    assert_eq!(
        report.replaced,
        [
            replaced("fc.bias", &[3], &[7]),
            replaced("fc.weight", &[3, 512], &[7, 512])
        ]
    );
    let text = report.to_string();
    assert!(
        text.contains("100 tensors") && text.contains("fc.weight is new, [3, 512] instead of"),
        "{text}"
    );
    for (name, var) in model.params().all() {
        let want = if name.starts_with("fc.") {
            &before[&name]
        } else {
            &dict[&name]
        };
        assert_eq!(values(&var), values(want), "{name}");
    }
}

#[test]
fn a_head_that_fits_is_loaded_even_if_a_new_one_may_be() {
    let (pretrained, model) = (resnet(3, 0), resnet(3, 1));
    let dict = pretrained.params().state_dict().unwrap();
    let report = model.params().load_with_new_head(&dict, model.head()).unwrap();
    assert_eq!((report.loaded, report.replaced.len()), (102, 0));
    assert!(unchanged(&model, &dict));
    // As many classes, but other ones.
    let model = resnet(3, 1);
    let report = model.params().load_for_other_classes(&dict, model.head()).unwrap();
    assert_eq!((report.loaded, report.replaced.len()), (100, 2));
    assert_eq!(
        values(&model.params().state_dict().unwrap()["fc.bias"]),
        values(&resnet(3, 1).params().state_dict().unwrap()["fc.bias"])
    );
}

#[test]
fn only_a_head_for_other_classes_may_be_replaced() {
    let model = resnet(3, 1);
    let before = model.params().state_dict().unwrap();
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    let head = |weight: &[usize], bias: &[usize]| {
        let mut dict = resnet(7, 0).params().state_dict().unwrap();
        dict.insert("fc.weight".to_owned(), zeros(weight));
        dict.insert("fc.bias".to_owned(), zeros(bias));
        dict
    };
    let mut missing = head(&[7, 512], &[7]);
    missing.remove("fc.bias");
    for dict in [
        head(&[7, 2048], &[7]),
        head(&[512, 7], &[7]),
        head(&[7, 512], &[3]),
        head(&[7, 512], &[8]),
        missing,
    ] {
        let error = model.params().load_with_new_head(&dict, model.head()).unwrap_err();
        assert!(matches!(error, Error::StateDict(_)), "{error}");
        assert!(unchanged(&model, &before));
    }
}

#[test]
fn one_error_lists_every_difference() {
    let model = resnet(3, 1);
    let before = model.params().state_dict().unwrap();
    let mut dict = resnet(7, 0).params().state_dict().unwrap();
    dict.remove("bn1.weight");
    dict.remove("layer2.0.downsample.1.running_var");
    let zeros = |dims: &[usize], dtype| Tensor::zeros(dims, dtype, &Device::Cpu).unwrap();
    dict.insert("layer5.0.conv1.weight".to_owned(), zeros(&[1], DType::F32));
    dict.insert("counter.num_batches_tracked".to_owned(), zeros(&[], DType::I64));
    dict.insert("bn1.num_batches_tracked".to_owned(), zeros(&[], DType::I64));
    dict.insert("conv1.weight".to_owned(), zeros(&[3, 3, 3, 64], DType::F32));
    dict.insert("bn1.bias".to_owned(), zeros(&[64], DType::I64));
    let error = model.params().load_with_new_head(&dict, model.head()).unwrap_err();
    let text = error.to_string();
    let Error::StateDict(mismatch) = error else {
        panic!("{text}")
    };
    assert_eq!(mismatch.missing, ["bn1.weight", "layer2.0.downsample.1.running_var"]);
    assert_eq!(
        mismatch.unexpected,
        ["counter.num_batches_tracked", "layer5.0.conv1.weight"]
    );
    let names: Vec<&str> = mismatch.mismatched.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["bn1.bias", "conv1.weight"]);
    for part in [
        "bn1.bias: expected F32 [64], got I64 [64]",
        "conv1.weight: expected F32 [64, 3, 3, 3], got F32 [3, 3, 3, 64] (transposed)",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(unchanged(&model, &before));
}

#[test]
fn initial_values_are_torchvisions() {
    let model = resnet(10, 0);
    for (name, var) in model.params().all() {
        let v = values(&var);
        match (is_buffer(&name), var.dims()) {
            (false, [outputs, _, k, _]) => {
                let stdev = (v.iter().map(|v| v * v).sum::<f64>() / v.len() as f64).sqrt();
                let want = (2.0 / (outputs * k * k) as f64).sqrt();
                assert!((stdev / want - 1.0).abs() < 0.05, "{name}: {stdev} {want}");
            }
            _ if name.starts_with("fc.") => {
                let bound = 1.0 / 512f64.sqrt();
                assert!(v.iter().all(|v| v.abs() <= bound) && v.iter().any(|v| v.abs() > 0.5 * bound));
            }
            _ => {
                let want = if name.ends_with("bias") || name.ends_with("mean") {
                    0.0
                } else {
                    1.0
                };
                assert!(v.iter().all(|v| *v == want), "{name}");
            }
        }
    }
}
