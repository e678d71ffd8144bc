//! ResNet-18's training step on random images of 224 pixels, as PyTorch's benchmark of the same cases.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use kestrel_kernels::AdamConfig;
use kestrel_kernels::random::{KeyedRng, Purpose};
use kestrel_models::{Depth, Model, ResNet, ResNetConfig};
use kestrel_train::optim::Adam;

use super::steps::Steps;
use crate::cli::BenchArgs;

/// Batch 16, every layer is trained: forward, cross-entropy, backward, Adam, and the loss read back.
pub(super) fn full(args: &BenchArgs, device: &Device) -> Result<Vec<f64>> {
    train(Steps::new(args, 16), false, device)
}

/// Batch 32, the last layer alone is trained; the others are frozen, batch norms in evaluation, and run for every batch.
pub(super) fn head(repeats: u64, device: &Device) -> Result<Vec<f64>> {
    train(Steps::plain(32, repeats), true, device)
}

fn train(steps: Steps, freeze: bool, device: &Device) -> Result<Vec<f64>> {
    let n = steps.batch;
    let model = ResNet::new(ResNetConfig::new(Depth::ResNet18, 10), 0, DType::F32, device)?;
    if freeze {
        model.freeze_all_but_head()?;
    }
    let mut rng = KeyedRng::new(0, Purpose::Init, 0, 1);
    let values: Vec<f32> = (0..n * 3 * 224 * 224).map(|_| rng.normal() as f32).collect();
    let x = Tensor::from_vec(values, (n, 3, 224, 224), device)?;
    let targets: Vec<u32> = (0..n).map(|_| rng.below(10) as u32).collect();
    let y = Tensor::from_vec(targets, n, device)?;
    let adam = AdamConfig {
        lr: 1e-3,
        ..AdamConfig::default()
    };
    let mut optimizer = Adam::new(model.params().trainable(), adam)?;
    steps.measure(&model, &mut optimizer, &x, &y)
}
