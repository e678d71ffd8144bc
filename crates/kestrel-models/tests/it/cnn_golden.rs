//! The CNN against PyTorch: logits, loss, every gradient, running statistics, ten steps of Adam.
//!
//! The golden files hold PyTorch's numbers in f64 and in f32. In f64 ours must be the same program (1e-9); in f32 it must
//! stay within the stated error of the f64 truth: 1e-5 for one forward and backward, 1e-4 after ten steps.
//!
//! Two exceptions, both after ten steps in f32. The bias of a convolution before a batch norm has gradient zero, and Adam
//! scales the rounding noise that stands there to full steps: PyTorch's own f32 run strays from f64 by up to 5e-3 in these
//! biases and in the running means that follow them, and ours may stray as far as the worst of PyTorch's. And rounding, a few
//! 1e-6 in a gradient, tips a few relu and max-pool decisions at near-ties, each of which is a sizeable part of a gradient at
//! batch 4. At full width the ten losses still meet 1e-4, and the weights 2e-2: with Winograd and without it, so it is not
//! Winograd's rounding that decides. Which decisions are tipped differs from one processor to another.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use kestrel_kernels::channels_last::without_winograd;
use kestrel_kernels::cross_entropy;
use kestrel_kernels::update::{AdamConfig, adam_step};
use kestrel_models::{Cnn, CnnConfig, Mode, Model};

use crate::formula::{fill, images};
use crate::manifest_dir::manifest_dir;

pub(crate) type Golden = HashMap<String, Tensor>;

pub(crate) fn golden(name: &str) -> Golden {
    let path = manifest_dir().join(format!("tests/golden/{name}.safetensors"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

pub(crate) fn values(t: &Tensor) -> Vec<f64> {
    t.flatten_all()
        .unwrap()
        .to_dtype(DType::F64)
        .unwrap()
        .to_vec1()
        .unwrap()
}

/// All of a tensor, or the 64 elements that the script chose.
pub(crate) fn sampled(t: &Tensor, like: usize) -> Vec<f64> {
    let all = values(t);
    if all.len() == like {
        all
    } else {
        (0..64).map(|i| all[i * (all.len() / 64)]).collect()
    }
}

pub(crate) fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Norm-wise relative error; `floor` is the norm below which a gradient is rounding noise.
pub(crate) fn error(got: &[f64], want: &[f64], floor: f64) -> f64 {
    assert_eq!(got.len(), want.len());
    let diff: Vec<f64> = got.iter().zip(want).map(|(a, b)| a - b).collect();
    norm(&diff) / norm(want).max(floor)
}

struct Check<'a> {
    golden: &'a Golden,
}

impl Check<'_> {
    fn close(&self, name: &str, got: &Tensor, limit: f64, floor: f64) {
        let want = values(&self.golden[&format!("f64.{name}")]);
        let err = error(&sampled(got, want.len()), &want, floor);
        assert!(err <= limit, "{name}: relative error {err:.2e} > {limit:.0e}");
    }

    /// How far PyTorch's own f32 run strays from its f64 run in the worst of the tensors that noise drives.
    fn pytorchs_noise(&self) -> f64 {
        let stray = |name: &str| {
            let of = |kind| values(&self.golden[&format!("{kind}.after.{name}")]);
            error(&of("f32"), &of("f64"), 0.0)
        };
        let names = self.golden.keys().filter_map(|k| k.strip_prefix("f64.after."));
        names
            .filter(|name| is_noise_driven(name))
            .map(stray)
            .fold(0.0, f64::max)
    }
}

/// Whether ten steps of Adam move a tensor by amplified rounding noise.
fn is_noise_driven(name: &str) -> bool {
    is_cancelled(name) || name.ends_with("running_mean")
}

/// The bias of a convolution before a batch norm has gradient zero; what is there is rounding.
fn is_cancelled(name: &str) -> bool {
    name.starts_with("conv") && name.ends_with("bias")
}

fn compare(file: &str, width: usize, dtype: DType, one_pass: f64, ten_losses: f64, ten_steps: f64) {
    compare_on(
        &Device::Cpu,
        file,
        width,
        dtype,
        [one_pass, one_pass, ten_losses, ten_steps],
    );
}

pub(crate) fn compare_on(
    device: &Device,
    file: &str,
    width: usize,
    dtype: DType,
    [one_pass, gradients, ten_losses, ten_steps]: [f64; 4],
) {
    let golden = golden(file);
    let check = Check { golden: &golden };
    let config = CnnConfig {
        width,
        dropout: 0.0,
        ..CnnConfig::new(10)
    };
    let model = Cnn::new(config, 0, dtype, device).unwrap();
    fill(model.params(), dtype, 1.0);
    let batch = 4;
    let images = images(batch, 32, dtype).to_device(device).unwrap();
    let targets: Vec<u32> = (0..batch as u32).map(|i| i * 3 % 10).collect();
    let targets = Tensor::new(targets, device).unwrap();

    check.close(
        "eval.logits",
        &model.forward(&images, Mode::Eval).unwrap(),
        one_pass,
        0.0,
    );

    let vars = model.params().trainable();
    let moments: Vec<(Tensor, Tensor)> = vars
        .iter()
        .map(|(_, v)| (v.zeros_like().unwrap(), v.zeros_like().unwrap()))
        .collect();
    let adam = AdamConfig {
        lr: 1e-3,
        weight_decay: 1e-4,
        ..AdamConfig::default()
    };
    let mut losses = Vec::new();
    for step in 0..10 {
        let logits = model.forward(&images, Mode::Train { seed: 0, step }).unwrap();
        let loss = cross_entropy(&logits, &targets).unwrap();
        losses.push(values(&loss)[0]);
        let grads = loss.backward().unwrap();
        if step == 0 {
            check.close("train.logits", &logits, one_pass, 0.0);
            for (name, var) in &vars {
                let grad = grads.get(var).unwrap();
                let floor = if is_cancelled(name) { 1.0 } else { 0.0 };
                check.close(&format!("grad.{name}"), grad, gradients, floor);
                let want = values(&golden[&format!("f64.grad_norm.{name}")])[0];
                let got = norm(&values(grad));
                assert!(
                    (got - want).abs() <= gradients * want.max(floor),
                    "norm of grad {name}: {got} {want}"
                );
            }
            for (name, var) in model.params().all() {
                if kestrel_models::is_buffer(&name) {
                    check.close(&format!("buffer.{name}"), &var, one_pass, 0.0);
                }
            }
        }
        for ((_, var), (m, v)) in vars.iter().zip(&moments) {
            adam_step(var, grads.get(var).unwrap(), m, v, step + 1, &adam).unwrap();
        }
    }
    let want = values(&golden["f64.losses"]);
    let err = error(&losses, &want, 0.0);
    assert!(err <= ten_losses, "losses: {err:.2e}: {losses:?} {want:?}");
    for (name, var) in model.params().all() {
        let after = format!("after.{name}");
        let noise = if is_noise_driven(&name) && dtype == DType::F32 {
            check.pytorchs_noise()
        } else {
            0.0
        };
        check.close(&after, &var, ten_steps.max(noise), 0.0);
        let want = values(&golden[&format!("f64.after_norm.{name}")])[0];
        let got = norm(&values(&var));
        assert!(
            (got / want - 1.0).abs() <= ten_steps.max(noise),
            "norm of {name} after: {got} {want}"
        );
    }
}

#[test]
fn narrow_in_f64_is_pytorchs_program() {
    compare("cnn_narrow", 4, DType::F64, 1e-9, 1e-7, 1e-7);
}

#[test]
fn narrow_in_f32() {
    compare("cnn_narrow", 4, DType::F32, 1e-5, 1e-4, 1e-4);
}

#[test]
fn full_in_f64_is_pytorchs_program() {
    compare("cnn_full", 64, DType::F64, 1e-9, 1e-7, 1e-7);
}

/// Rounding, of Winograd's transforms or of long sums, tips a relu or a maximum that is nearly tied somewhere in ten steps;
/// each is a sizeable part of a gradient at batch 4, so single tensors stray, and the losses do not.
#[test]
fn full_in_f32() {
    compare("cnn_full", 64, DType::F32, 1e-5, 1e-4, 2e-2);
}

#[test]
fn full_in_f32_without_winograd() {
    without_winograd(|| compare("cnn_full", 64, DType::F32, 1e-5, 1e-4, 2e-2));
}

#[test]
fn full_width_has_the_reference_parameter_count() {
    let model = Cnn::new(CnnConfig::new(10), 0, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(model.params().num_parameters(), 3_249_994);
}

#[test]
fn names_are_those_of_pytorchs_state_dict() {
    let model = Cnn::new(
        CnnConfig {
            width: 1,
            ..CnnConfig::new(2)
        },
        0,
        DType::F32,
        &Device::Cpu,
    )
    .unwrap();
    let mut want = Vec::new();
    for i in 1..=6 {
        want.extend(["bias", "weight"].map(|leaf| format!("conv{i}.{leaf}")));
        want.extend(["bias", "running_mean", "running_var", "weight"].map(|leaf| format!("bn{i}.{leaf}")));
    }
    for fc in ["fc1", "fc2"] {
        want.extend(["bias", "weight"].map(|leaf| format!("{fc}.{leaf}")));
    }
    want.sort();
    let got: Vec<String> = model.params().all().into_iter().map(|(name, _)| name).collect();
    assert_eq!(got, want);
}

#[test]
fn images_of_another_size_are_refused() {
    let model = Cnn::new(
        CnnConfig {
            width: 1,
            ..CnnConfig::new(2)
        },
        0,
        DType::F32,
        &Device::Cpu,
    )
    .unwrap();
    let images = Tensor::zeros((1, 3, 28, 28), DType::F32, &Device::Cpu).unwrap();
    let error = model.forward(&images, Mode::Eval).unwrap_err().to_string();
    assert!(error.contains("[N, 3, 32, 32]") && error.contains("28"), "{error}");
}
