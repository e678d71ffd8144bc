//! The training step of the cifar-94 recipe's network on random images, as `scripts/peer/torch_cifar94.py`.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use kestrel_kernels::random::{KeyedRng, Purpose};
use kestrel_kernels::update::SgdConfig;
use kestrel_kernels::{CrossEntropyConfig, cross_entropy_with, tape};
use kestrel_models::{Mode, Model, WhitenedCnn, WhitenedCnnConfig};
use kestrel_train::optim::{Optimizer, Sgd};

use super::clock;

/// Batch 1,024, the whitening layer frozen as it is in most epochs: forward, smoothed cross-entropy, backward, Nesterov's
/// momentum, and the loss read back.
pub(super) fn train(repeats: u64, device: &Device) -> Result<Vec<f64>> {
    let n = 1024;
    let model = WhitenedCnn::new(WhitenedCnnConfig::new(10), 0, DType::F32, device)?;
    let mut rng = KeyedRng::new(0, Purpose::Init, 0, 1);
    let values: Vec<f32> = (0..n * 3 * 32 * 32).map(|_| rng.normal() as f32).collect();
    let x = Tensor::from_vec(values, (n, 3, 32, 32), device)?;
    let targets: Vec<u32> = (0..n).map(|_| rng.below(10) as u32).collect();
    let y = Tensor::from_vec(targets, n, device)?;
    model.init_from_images(&x)?;
    model.params().freeze("whiten")?;
    let smoothed = CrossEntropyConfig {
        label_smoothing: 0.2,
        class_weights: None,
    };
    let sgd = SgdConfig {
        lr: 1.5,
        momentum: 0.85,
        weight_decay: 1.33e-3,
        nesterov: true,
        ..SgdConfig::default()
    };
    let mut optimizer = Sgd::new(model.params().trainable(), sgd)?;
    let mut step = 0;
    clock(n, repeats, || {
        let logits = model.forward(&x, Mode::Train { seed: 0, step })?;
        let loss = cross_entropy_with(&logits, &y, &smoothed)?;
        optimizer.step(&tape::backward(&loss)?)?;
        loss.to_scalar::<f32>()?;
        step += 1;
        Ok(())
    })
}
