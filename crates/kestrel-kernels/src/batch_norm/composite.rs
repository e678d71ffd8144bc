//! Batch normalisation composed of candle's own ops, for devices without a kernel here.

use super::BatchNormConfig;
use candle_core::{Result, Tensor};

pub(super) fn train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running_mean: &Tensor,
    running_var: &Tensor,
    config: &BatchNormConfig,
) -> Result<Tensor> {
    let planes = x.flatten_from(1)?.reshape((x.dim(0)?, x.dim(1)?, ()))?;
    let count = (planes.dim(0)? * planes.dim(2)?) as f64;
    let mean = planes.mean_keepdim((0, 2))?;
    let centered = planes.broadcast_sub(&mean)?;
    let var = centered.sqr()?.mean_keepdim((0, 2))?;
    let y = centered.broadcast_div(&(&var + config.eps)?.sqrt()?)?;
    let unbiased_var = (&var * (count / (count - 1.0)))?;
    for (running, new) in [(running_mean, mean), (running_var, unbiased_var)] {
        let kept = (running.detach() * (1.0 - config.momentum))?;
        let moved = (kept + (new.detach().flatten_all()? * config.momentum)?)?;
        running.slice_set(&moved, 0, 0)?;
    }
    affine(&y, weight, bias)?.reshape(x.shape())
}

pub(super) fn eval(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running_mean: &Tensor,
    running_var: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let planes = x.flatten_from(1)?.reshape((x.dim(0)?, x.dim(1)?, ()))?;
    let mean = running_mean.detach().reshape((1, (), 1))?;
    let std = (running_var.detach() + eps)?.sqrt()?.reshape((1, (), 1))?;
    affine(&planes.broadcast_sub(&mean)?.broadcast_div(&std)?, weight, bias)?.reshape(x.shape())
}

fn affine(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    x.broadcast_mul(&weight.reshape((1, (), 1))?)?
        .broadcast_add(&bias.reshape((1, (), 1))?)
}
