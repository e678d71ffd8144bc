//! ResNet-18's training step on random images of 224 pixels, as PyTorch's benchmark of the same cases.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use kestrel_kernels::random::{KeyedRng, Purpose};
use kestrel_kernels::{AdamConfig, cross_entropy, tape};
use kestrel_models::{Depth, Mode, Model, ResNet, ResNetConfig};
use kestrel_train::optim::{Adam, Optimizer};

use super::clock;

/// Batch 16, every layer is trained: forward, cross-entropy, backward, Adam, and the loss read back.
pub(super) fn full(repeats: u64, device: &Device) -> Result<Vec<f64>> {
    train(16, false, repeats, device)
}

/// Batch 32, the last layer alone is trained; the others are frozen, batch norms in evaluation, and run for every batch.
pub(super) fn head(repeats: u64, device: &Device) -> Result<Vec<f64>> {
    train(32, true, repeats, device)
}

fn train(n: usize, freeze: bool, repeats: u64, device: &Device) -> Result<Vec<f64>> {
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
    let mut step = 0;
    clock(n, repeats, || {
        let loss = cross_entropy(&model.forward(&x, Mode::Train { seed: 0, step })?, &y)?;
        optimizer.step(&tape::backward(&loss)?)?;
        loss.to_scalar::<f32>()?;
        step += 1;
        Ok(())
    })
}
