//! Batch normalisation and relu in one op, on channels-last tensors: the tensor between the two is never written.

mod normalize;
mod rows;
mod strip;

use crate::batch_norm::statistics::{Statistics, UpdateRunning};
use crate::batch_norm::{self, BatchNormConfig, batch_norm_eval, batch_norm_train};
use crate::relu::relu;
use crate::{Error, Result, element};
use candle_core::{DType, Tensor};
use normalize::NormalizeRelu;
use rows::Rows;

const OP: &str = "batch_norm_relu";

/// Normalises by the batch's own statistics, moves the running statistics in place, and rectifies.
///
/// ```text
/// mean = Σ x / M,  var = Σ (x − mean)² / M,  M = N·H·W
/// y = relu((x − mean) / √(var + eps) · weight + bias)
/// running_mean = (1 − momentum) running_mean + momentum · mean
/// running_var  = (1 − momentum) running_var  + momentum · var · M / (M − 1)
/// ```
///
/// The same numbers as [`batch_norm_train`] and [`relu`] of a channels-first tensor, NaN included. Sums of `f32` run in
/// `f32` over a few values at a time and in `f64` from there on. The backward goes through the batch statistics and takes
/// the rectifier's gate from `x`, so that only `x` is kept; none goes to the running statistics.
///
/// # Shapes
/// `x` and the result `[N, H, W, C]`, the result contiguous; all others `[C]`, contiguous where they are updated.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::TooFewValuesPerChannel`] for `M < 2`, candle's
/// `RequiresContiguous`; the running statistics are then untouched.
///
/// # Source
/// Ioffe and Szegedy 2015, algorithm 1; `relu(batch_norm(training=True))` of `torch.nn.functional`; tested against
/// [`batch_norm_train`], which `tests/golden/batch_norm.safetensors` proves.
pub fn batch_norm_relu_train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running_mean: &Tensor,
    running_var: &Tensor,
    config: &BatchNormConfig,
) -> Result<Tensor> {
    let planes = channels_first(x)?;
    if !runs_here(x) {
        let y = batch_norm_train(&planes, weight, bias, running_mean, running_var, config)?;
        return channels_last(&relu(&y)?);
    }
    let extent = batch_norm::check(&planes, [weight, bias, running_mean, running_var])?;
    if extent.values_per_channel() < 2 {
        return Err(Error::TooFewValuesPerChannel { got: x.dims().to_vec() });
    }
    for running in [running_mean, running_var] {
        element::require_contiguous(OP, running)?;
    }
    let x = x.contiguous()?;
    let rows = Rows::new(extent.channels);
    let statistics = element::with_slice(OP, &x, |x| rows.statistics(x, config.eps))?;
    let (new_mean, new_var) = (statistics.mean.clone(), statistics.unbiased_var(&extent));
    let normalize = NormalizeRelu {
        rows,
        statistics,
        training: true,
    };
    let y = x.apply_op3(&weight.contiguous()?, &bias.contiguous()?, normalize)?;
    for (running, new) in [(running_mean, new_mean), (running_var, new_var)] {
        running.inplace_op1(&UpdateRunning {
            new,
            momentum: config.momentum,
        })?;
    }
    Ok(y)
}

/// Normalises by the running statistics, which stay as they are, and rectifies.
///
/// ```text
/// y = relu((x − running_mean) / √(running_var + eps) · weight + bias)
/// ```
///
/// The backward gives gradients of `x`, `weight` and `bias`, each only if something needs it.
///
/// # Shapes
/// `x` and the result `[N, H, W, C]`, the result contiguous; all others `[C]`.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`].
///
/// # Source
/// `relu(batch_norm(training=False))` of `torch.nn.functional`; tested against [`batch_norm_eval`], which
/// `tests/golden/batch_norm.safetensors` proves.
pub fn batch_norm_relu_eval(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running_mean: &Tensor,
    running_var: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let planes = channels_first(x)?;
    if !runs_here(x) {
        let y = batch_norm_eval(&planes, weight, bias, running_mean, running_var, eps)?;
        return channels_last(&relu(&y)?);
    }
    let extent = batch_norm::check(&planes, [weight, bias, running_mean, running_var])?;
    let read = |tensor: &Tensor| -> candle_core::Result<Vec<f64>> {
        Ok(tensor.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
    };
    let normalize = NormalizeRelu {
        rows: Rows::new(extent.channels),
        statistics: Statistics::new(read(running_mean)?, read(running_var)?, eps),
        training: false,
    };
    Ok(x.contiguous()?
        .apply_op3(&weight.contiguous()?, &bias.contiguous()?, normalize)?)
}

/// Whether the kernels of this module take `x`.
fn runs_here(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// `x` seen as `[N, C, H, W]`.
fn channels_first(x: &Tensor) -> Result<Tensor> {
    element::dims4("batch_norm_relu input", x, "[N, H, W, C]")?;
    Ok(x.permute((0, 3, 1, 2))?)
}

/// A channels-first tensor laid out as `[N, H, W, C]`.
fn channels_last(y: &Tensor) -> Result<Tensor> {
    Ok(y.permute((0, 2, 3, 1))?.contiguous()?)
}

#[cfg(test)]
mod tests;
