//! Batch normalisation over every axis but the channels, in training and in evaluation.

mod composite;
mod normalize;
pub(crate) mod statistics;

use crate::element::{self, dispatch};
use crate::{Error, Result, autocast};
use candle_core::{DType, Tensor, WithDType};
use normalize::Normalize;
use statistics::{Planes, Statistics, UpdateRunning};

/// Constants of batch normalisation in training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNormConfig {
    /// Added to the variance.
    pub eps: f64,
    /// Weight of the new value in the running statistics (PyTorch's convention: `running = (1 − m) running + m new`).
    pub momentum: f64,
}

impl Default for BatchNormConfig {
    fn default() -> Self {
        Self {
            eps: 1e-5,
            momentum: 0.1,
        }
    }
}

/// Normalises by the batch's own statistics and moves the running statistics in place.
///
/// ```text
/// mean = Σ x / M,  var = Σ (x − mean)² / M,  M = N·H·W
/// y = (x − mean) / √(var + eps) · weight + bias
/// running_mean = (1 − momentum) running_mean + momentum · mean
/// running_var  = (1 − momentum) running_var  + momentum · var · M / (M − 1)
/// ```
///
/// Sums are accumulated in f64. The backward goes through the batch statistics; none goes to the running ones, which may
/// be [`candle_core::Var`]s or plain tensors.
///
/// # Shapes
/// `x` and the result `[N, C, ...]`, all others `[C]`, contiguous where they are updated.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::TooFewValuesPerChannel`] for `M < 2`, candle's
/// `RequiresContiguous`; the running statistics are then untouched.
///
/// # Source
/// Ioffe and Szegedy 2015, algorithm 1; `torch.nn.functional.batch_norm(training=True)`; proved by
/// `tests/golden/batch_norm.safetensors`.
pub fn batch_norm_train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running_mean: &Tensor,
    running_var: &Tensor,
    config: &BatchNormConfig,
) -> Result<Tensor> {
    const OP: &str = "batch_norm";
    let planes = check(x, [weight, bias, running_mean, running_var])?;
    if planes.values_per_channel() < 2 {
        return Err(Error::TooFewValuesPerChannel { got: x.dims().to_vec() });
    }
    for running in [running_mean, running_var] {
        element::require_contiguous(OP, running)?;
    }
    if let Some(precision) = autocast::of_tensor(x) {
        return autocast::rounded_map(precision, x, |x| {
            batch_norm_train(x, weight, bias, running_mean, running_var, config)
        });
    }
    if !x.device().is_cpu() {
        return Ok(composite::train(x, weight, bias, running_mean, running_var, config)?);
    }
    let x = x.contiguous()?;
    let statistics = dispatch!(OP, x.dtype(), T => {
        Ok::<_, Error>(element::with_slice::<T, _>(OP, &x, |x| Statistics::of_batch(&planes, x, config.eps))?)
    })?;
    let (mean, unbiased_var) = (statistics.mean.clone(), statistics.unbiased_var(&planes));
    let normalize = Normalize {
        planes,
        statistics,
        training: true,
    };
    let y = x.apply_op3(&weight.contiguous()?, &bias.contiguous()?, normalize)?;
    running_mean.inplace_op1(&UpdateRunning {
        new: mean,
        momentum: config.momentum,
    })?;
    running_var.inplace_op1(&UpdateRunning {
        new: unbiased_var,
        momentum: config.momentum,
    })?;
    Ok(y)
}

/// Normalises by the running statistics, which stay as they are.
///
/// ```text
/// y = (x − running_mean) / √(running_var + eps) · weight + bias
/// ```
///
/// Affine in `x`; the backward gives gradients of `x`, `weight` and `bias`, each only if something needs it.
///
/// # Shapes
/// `x` and the result `[N, C, ...]`, all others `[C]`.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`].
///
/// # Source
/// `torch.nn.functional.batch_norm(training=False)`; proved by `tests/golden/batch_norm.safetensors`.
pub fn batch_norm_eval(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running_mean: &Tensor,
    running_var: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let planes = check(x, [weight, bias, running_mean, running_var])?;
    if let Some(precision) = autocast::of_tensor(x) {
        return autocast::rounded_map(precision, x, |x| {
            batch_norm_eval(x, weight, bias, running_mean, running_var, eps)
        });
    }
    if !x.device().is_cpu() {
        return Ok(composite::eval(x, weight, bias, running_mean, running_var, eps)?);
    }
    let statistics = dispatch!("batch_norm", x.dtype(), T => {
        let read = |tensor: &Tensor| -> candle_core::Result<Vec<f64>> {
            Ok(tensor.to_vec1::<T>()?.into_iter().map(WithDType::to_f64).collect())
        };
        Ok::<_, Error>(Statistics::new(read(running_mean)?, read(running_var)?, eps))
    })?;
    let normalize = Normalize {
        planes,
        statistics,
        training: false,
    };
    Ok(x.contiguous()?
        .apply_op3(&weight.contiguous()?, &bias.contiguous()?, normalize)?)
}

/// The planes of `x`, once all element types and shapes agree.
pub(crate) fn check(x: &Tensor, per_channel: [&Tensor; 4]) -> Result<Planes> {
    element::require_float("batch_norm", x)?;
    let planes = match *x.dims() {
        [batch, channels, ref rest @ ..] if channels > 0 && !rest.contains(&0) => Planes {
            batch,
            channels,
            positions: rest.iter().product(),
        },
        ref got => {
            return Err(Error::ShapeMismatch {
                op: "batch_norm input",
                expected: "[N, C, ...]".to_owned(),
                got: got.to_vec(),
            });
        }
    };
    check_parameters(planes.channels, x.dtype(), per_channel)?;
    Ok(planes)
}

/// Weight, bias, running mean and running variance are `[C]` and of one element type.
pub(crate) fn check_parameters(channels: usize, dtype: DType, per_channel: [&Tensor; 4]) -> Result<()> {
    let names = [
        "batch_norm weight",
        "batch_norm bias",
        "batch_norm running_mean",
        "batch_norm running_var",
    ];
    for (op, tensor) in names.into_iter().zip(per_channel) {
        element::require_dtype(op, tensor, dtype)?;
        element::require_shape(op, tensor, &[channels])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
