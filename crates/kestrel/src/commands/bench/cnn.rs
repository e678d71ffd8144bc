//! The CNN's training step and evaluation pass on random images, as PyTorch's benchmark of the same cases.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use kestrel_kernels::random::{KeyedRng, Purpose};
use kestrel_models::{Cnn, CnnConfig, Mode, Model};
use kestrel_train::metrics::argmax;

use super::clock;
use super::steps::Steps;
use crate::cli::BenchArgs;
use crate::config::TrainConfig;

fn images(n: usize, device: &Device) -> Result<Tensor> {
    let mut rng = KeyedRng::new(0, Purpose::Init, 0, 1);
    let values: Vec<f32> = (0..n * 3 * 32 * 32).map(|_| rng.normal() as f32).collect();
    Ok(Tensor::from_vec(values, (n, 3, 32, 32), device)?)
}

fn model(device: &Device) -> Result<Cnn> {
    Ok(Cnn::new(CnnConfig::new(10), 0, DType::F32, device)?)
}

/// Batch 128: forward, cross-entropy, backward, Adam with weight decay, and the loss read back.
pub(super) fn train(args: &BenchArgs, device: &Device) -> Result<Vec<f64>> {
    let steps = Steps::new(args, 128);
    let n = steps.batch;
    let model = model(device)?;
    let x = images(n, device)?;
    let mut rng = KeyedRng::new(0, Purpose::Init, 0, 2);
    let targets: Vec<u32> = (0..n).map(|_| rng.below(10) as u32).collect();
    let y = Tensor::from_vec(targets, n, device)?;
    let mut optimizer = TrainConfig::default().optimizer(&model, 1)?;
    steps.measure(&model, optimizer.as_mut(), &x, &y)
}

/// Batch 100: forward in evaluation mode, and the predictions read back.
pub(super) fn eval(repeats: u64, device: &Device) -> Result<Vec<f64>> {
    let n = 100;
    let model = model(device)?;
    let x = images(n, device)?;
    clock(n, repeats, || {
        argmax(&model.forward(&x, Mode::Eval)?.detach())?;
        Ok(())
    })
}
