//! Grad-CAM against PyTorch's hooks, on each network.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use kestrel_models::{Cnn, CnnConfig, Depth, Mode, Model, ResNet, ResNetConfig, WhitenedCnn, WhitenedCnnConfig};
use kestrel_train::GradCam;

use crate::formula::{fill, formula, tensor};

const CLASSES: [usize; 4] = [0, 3, 7, 9];

fn golden() -> HashMap<String, Tensor> {
    let path = format!("{}/tests/golden/grad_cam.safetensors", env!("CARGO_MANIFEST_DIR"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn values(t: &Tensor) -> Vec<f64> {
    let t = t.to_dtype(DType::F64).unwrap();
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn compare(name: &str, model: &dyn Model, size: [usize; 2], dtype: DType, limit: f64) {
    let golden = golden();
    model.params().freeze("").unwrap();
    let [height, width] = size;
    let pixels = formula("images", 3 * height * width);
    let image = tensor(pixels.iter().map(|v| 2.0 * v).collect(), &[1, 3, height, width], dtype);
    let cam = GradCam::new(model, &image).unwrap();
    let close = |what: &str, got: &[f64], want: &[f64]| {
        assert_eq!(got.len(), want.len(), "{name} {what}");
        let scale = want.iter().fold(0.0f64, |max, v| max.max(v.abs())).max(1e-3);
        for (got, want) in got.iter().zip(want) {
            let error = (got - want).abs() / scale;
            assert!(
                error <= limit,
                "{name} {what}: {got} is not {want}, {error:.1e} > {limit:.0e}"
            );
        }
    };
    close(
        "logits",
        &values(cam.logits()),
        &values(&golden[&format!("{name}.logits")]),
    );
    assert_eq!(
        values(cam.logits()),
        values(&model.forward(&image, Mode::Eval).unwrap())
    );
    for class in CLASSES {
        let want = &golden[&format!("{name}.heatmap.{class}")];
        let heatmap = cam.heatmap(class).unwrap();
        assert_eq!([1, heatmap.height(), heatmap.width()], want.dims());
        let widened = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        close(&format!("heatmap {class}"), &widened(heatmap.values()), &values(want));
        if name == "resnet18" && class == 0 {
            let want = &golden["resized"];
            let resized = heatmap.resized(want.dim(1).unwrap(), want.dim(2).unwrap());
            close("resized", &widened(&resized), &values(want));
        }
    }
}

/// In f64 the same program but for the heatmap's rounding to f32; in f32 within rounding.
const LIMITS: [(DType, f64); 2] = [(DType::F64, 1e-6), (DType::F32, 1e-4)];

#[test]
fn of_the_cnn() {
    for (dtype, limit) in LIMITS {
        let config = CnnConfig {
            width: 4,
            ..CnnConfig::new(10)
        };
        let model = Cnn::new(config, 0, dtype, &Device::Cpu).unwrap();
        fill(model.params(), dtype, 1.0);
        compare("cnn", &model, [32, 32], dtype, limit);
    }
}

#[test]
fn of_a_resnet() {
    for (dtype, limit) in LIMITS {
        let config = ResNetConfig::cifar(Depth::ResNet18, 10);
        let model = ResNet::new(config, 0, dtype, &Device::Cpu).unwrap();
        fill(model.params(), dtype, 6.0);
        compare("resnet18", &model, [40, 56], dtype, limit);
    }
}

#[test]
fn of_the_whitened_cnn() {
    for (dtype, limit) in LIMITS {
        let config = WhitenedCnnConfig {
            width: 8,
            ..WhitenedCnnConfig::new(10)
        };
        let model = WhitenedCnn::new(config, 0, dtype, &Device::Cpu).unwrap();
        fill(model.params(), dtype, 1.0);
        compare("whitened_cnn", &model, [32, 32], dtype, limit);
    }
}
