//! The golden files of the models on a GPU, in `f32` (and `f64`, by candle's ops).
//!
//! Without a device every test says that it was skipped; `KESTREL_REQUIRE_CUDA=1` makes that a failure.

use candle_core::{DType, Device};
use kestrel_models::{Depth, ResNetConfig};

use crate::{cnn_golden, resnet_golden, whitened_cnn_golden};

fn device() -> Option<Device> {
    match kestrel_kernels::cuda::device(0) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("KESTREL_REQUIRE_CUDA").is_none() => {
            eprintln!("skipped: no CUDA device ({error})");
            None
        }
        Err(error) => panic!("KESTREL_REQUIRE_CUDA is set, and there is no device: {error}"),
    }
}

#[test]
fn cuda_narrow_cnn_is_pytorchs() {
    let Some(device) = device() else { return };
    cnn_golden::compare_on(&device, "cnn_narrow", 4, DType::F32, [1e-5, 1e-5, 1e-4, 2e-2]);
}

#[test]
fn cuda_full_cnn_is_pytorchs() {
    let Some(device) = device() else { return };
    // Rounding tips a relu that is nearly tied: one in 260,000, and a sizeable part of a gradient at batch 4.
    cnn_golden::compare_on(&device, "cnn_full", 64, DType::F32, [1e-5, 5e-3, 1e-4, 2e-2]);
}

#[test]
fn cuda_narrow_cnn_in_f64_is_pytorchs_program() {
    let Some(device) = device() else { return };
    cnn_golden::compare_on(&device, "cnn_narrow", 4, DType::F64, [1e-9, 1e-9, 1e-7, 1e-7]);
}

#[test]
fn cuda_whitened_cnn_is_pytorchs() {
    let Some(device) = device() else { return };
    whitened_cnn_golden::compare_on(&device, 4, DType::F32, [1e-5, 1e-4]);
}

#[test]
fn cuda_resnet18_is_torchvisions() {
    let Some(device) = device() else { return };
    let config: ResNetConfig = resnet_golden::imagenet(Depth::ResNet18);
    resnet_golden::compare_on(&device, "resnet18_64", config, 2, DType::F32, [1e-5, 1e-4]);
}
