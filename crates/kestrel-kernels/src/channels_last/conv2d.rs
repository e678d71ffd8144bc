//! Convolution on channels-last tensors: Winograd where it pays, direct products elsewhere; groups by the channels-first op.

mod algorithm;
mod backward;
mod fold;

use std::cell::Cell;

use candle_core::{DType, Tensor};

use super::batch_norm::{Activation, BatchNorm, Convolved};
use super::{to_channels_first, to_channels_last};
use crate::conv2d::Conv2dConfig;
use crate::conv2d::geometry::Geometry;
use crate::tape::{self, Tape, Value, tensor};
use crate::{Result, autocast, element};
use algorithm::{Algorithm, Output};
pub(super) use backward::Conv2dOp;

pub(super) const OP: &str = "channels_last conv2d";

/// Cross-correlation of a batch of images with a kernel; [`crate::conv2d()`] in another layout, with the same numbers to
/// rounding.
///
/// `f32` on the CPU runs by Winograd transforms, whose relative error is about 1e-6, for a 3x3 kernel without dilation and at
/// least 8 input channels: with stride 1, padding of at most 2 and an output larger than 2x2, or with stride 2 and padding 1.
/// All else runs by direct products, but groups, which are the channels-first op's. The backward computes no gradient for an
/// argument that no variable leads to.
///
/// # Shapes
/// `x` `[N, H, W, C]`, `weight` `[K, C/G, R, S]` (PyTorch's order), `bias` `[K]`; the result is `[N, P, Q, K]`, contiguous.
///
/// # Errors
/// Those of [`crate::conv2d()`].
///
/// # Source
/// `torch.nn.functional.conv2d` with `memory_format=torch.channels_last`; Lavin and Gray 2016.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, config: &Conv2dConfig) -> Result<Tensor> {
    tape::section(|tape| {
        let x = tape.leaf(x)?;
        tape.conv2d(&x, weight, bias, config)
    })
}

impl Tape {
    /// Cross-correlation, as [`conv2d`].
    ///
    /// # Errors
    /// Those of [`crate::conv2d()`], and [`Error::ForeignValue`](crate::Error::ForeignValue) for another tape's value.
    pub fn conv2d(
        &mut self,
        x: &Value,
        weight: &Tensor,
        bias: Option<&Tensor>,
        config: &Conv2dConfig,
    ) -> Result<Value> {
        #[cfg(feature = "cuda")]
        if x.on_gpu().is_some() {
            self.check(x)?;
            return crate::cuda::conv2d(self, x, weight, bias, config);
        }
        match (self.algorithm(x, weight, bias, config)?, autocast::of_value(x)) {
            (Some(algorithm), None) => {
                let output = bias.map_or(Output::Plain, Output::Bias);
                let Convolved { y, op, needs_grad, .. } = self.convolve(x, weight, algorithm, output)?;
                let y = self.plain(needs_grad, y);
                self.record(&y, op);
                Ok(y)
            }
            (Some(_), Some(precision)) => self.rounded(precision, (x, weight, bias), false, |tape, x, weight, bias| {
                tape.conv2d(x, weight, bias, config)
            }),
            (None, _) => self.candle(&[x], |x| channels_first(&x[0], weight, bias, config)),
        }
    }

    /// `activation(batch_norm(conv2d(x)))` in as few passes over memory as there can be.
    ///
    /// When training, batch norm's statistics are gathered while the convolution's output is in cache. In an
    /// [`inference`](tape::inference) batch norm is folded into the weight and bias, and the activation applied before the
    /// output is stored.
    ///
    /// # Errors
    /// Those of [`conv2d`](Self::conv2d) and [`batch_norm`](Self::batch_norm).
    pub fn conv2d_batch_norm(
        &mut self,
        x: &Value,
        weight: &Tensor,
        bias: Option<&Tensor>,
        config: &Conv2dConfig,
        batch_norm: &BatchNorm<'_>,
        activation: Activation<'_>,
    ) -> Result<Value> {
        #[cfg(feature = "cuda")]
        if x.on_gpu().is_some() {
            self.check(x)?;
            let y = crate::cuda::convolve(self, x, weight, bias, config)?;
            return match y.on_gpu() {
                Some(on_gpu) => {
                    self.check_residual(&y, activation)?;
                    crate::cuda::normalize(self, on_gpu, bias, batch_norm, activation)
                }
                None => self.batch_norm(&y, batch_norm, activation),
            };
        }
        let fused = self.algorithm(x, weight, bias, config)?;
        let Some(algorithm) = fused.filter(|_| autocast::of_value(x).is_none()) else {
            let y = self.conv2d(x, weight, bias, config)?;
            return self.batch_norm(&y, batch_norm, activation);
        };
        if !self.is_recording() && !batch_norm.training {
            return self.convolve_folded(x, weight, bias, algorithm, batch_norm, activation);
        }
        let output = statistics_center(&algorithm, bias, batch_norm)?.map_or(Output::Plain, Output::Statistics);
        let convolved = Convolved {
            bias,
            ..self.convolve(x, weight, algorithm, output)?
        };
        self.normalize_convolved(convolved, batch_norm, activation)
    }

    /// `max_pool2d(relu(batch_norm(conv2d(x))), 2, 2, 0)`. Where Winograd takes the convolution and its output's sides are even,
    /// outputs are pooled while they are in registers: in an [`inference`](tape::inference) what pooling leaves out is never
    /// stored; with batch statistics it is, for the backward, and what is normalised is the one of each four that will be the largest.
    ///
    /// # Shapes
    /// `x` `[N, H, W, C]`, `weight` `[K, C, R, S]`, `bias` `[K]`; the result is `[N, P/2, Q/2, K]`, rounded down, for outputs `[N, P, Q, K]`
    /// of the convolution.
    ///
    /// # Errors
    /// Those of [`conv2d_batch_norm`](Self::conv2d_batch_norm) and [`max_pool2d`](Self::max_pool2d).
    pub fn conv2d_batch_norm_relu_max_pool(
        &mut self,
        x: &Value,
        weight: &Tensor,
        bias: Option<&Tensor>,
        config: &Conv2dConfig,
        batch_norm: &BatchNorm<'_>,
    ) -> Result<Value> {
        let fused = match autocast::of_value(x) {
            None => self.algorithm(x, weight, bias, config)?.filter(Algorithm::can_pool),
            Some(_) => None,
        };
        if let Some(algorithm) = fused {
            if !self.is_recording() && !batch_norm.training {
                return self.convolve_folded_and_pool(x, weight, bias, algorithm, batch_norm);
            }
            if let Some(center) = statistics_center(&algorithm, bias, batch_norm)?
                && let Some(sign) = signs(&algorithm, batch_norm)?
            {
                let output = Output::StatisticsAndExtremes { center, sign };
                let convolved = Convolved {
                    bias,
                    ..self.convolve(x, weight, algorithm, output)?
                };
                return self.normalize_convolved(convolved, batch_norm, Activation::Relu);
            }
        }
        let y = self.conv2d_batch_norm(x, weight, bias, config, batch_norm, Activation::Relu)?;
        self.max_pool2d(&y, 2, 2, 0)
    }

    /// The CPU's kernel for these arguments, if one takes them.
    fn algorithm(
        &self,
        x: &Value,
        weight: &Tensor,
        bias: Option<&Tensor>,
        config: &Conv2dConfig,
    ) -> Result<Option<Algorithm>> {
        self.check(x)?;
        if x.as_recorded().is_none() || x.on_gpu().is_some() {
            return Ok(None);
        }
        let input = x.shape_tensor();
        let geometry = Geometry::new(&to_channels_first(OP, input)?, weight, config)?;
        element::require_same_dtype("channels_last conv2d weight", weight, input)?;
        if let Some(bias) = bias {
            element::require_same_dtype("channels_last conv2d bias", bias, input)?;
            element::require_shape("channels_last conv2d bias", bias, &[geometry.out_channels])?;
        }
        Ok(Algorithm::choose(&geometry, config, WINOGRAD.get()))
    }

    /// Runs the kernel; what comes of it is still to be recorded.
    fn convolve(
        &mut self,
        x: &Value,
        weight: &Tensor,
        algorithm: Algorithm,
        output: Output<'_>,
    ) -> Result<Convolved<'static>> {
        let weight_node = self.leaf_node(weight);
        let bias_node = match output {
            Output::Bias(bias) => Some(self.leaf_node(bias)),
            _ => None,
        };
        let weight = weight.contiguous()?.detach();
        let input = algorithm.input(x)?;
        let (y, gathered) = algorithm.forward(&input, &weight, output)?;
        let x_node = x.as_recorded().map(|(node, _)| node);
        let mut nodes = [Some(weight_node), bias_node, x_node].into_iter().flatten();
        let needs_grad = nodes.any(|node| self.needs_grad(node));
        if let Some(node) = x_node {
            self.keep(node);
        }
        Ok(Convolved {
            y: tensor(y, &algorithm.output())?,
            op: Conv2dOp {
                algorithm,
                input,
                weight,
                x_node,
                weight_node,
                bias_node,
            },
            needs_grad,
            gathered,
            bias: None,
        })
    }
}

/// About what a convolution gathers the statistics of its output, `[K]`, if batch norm normalises by the batch's own. Any center near the
/// mean serves, and the running mean is one that a resumed run has too.
fn statistics_center(
    algorithm: &Algorithm,
    bias: Option<&Tensor>,
    batch_norm: &BatchNorm<'_>,
) -> Result<Option<Vec<f32>>> {
    let center = batch_norm.running_mean.detach();
    let center = match bias {
        Some(bias) if center.dims() == bias.dims() => center.sub(&bias.detach())?,
        _ => center,
    };
    let fits = center.dims() == [algorithm.output()[3]] && center.dtype() == DType::F32;
    if batch_norm.training && fits {
        return Ok(Some(center.to_vec1()?));
    }
    Ok(None)
}

/// For each channel whether batch norm's result rises (1) or falls (-1) with its input; none if one of them does neither: its maximum
/// is then the first of each window.
fn signs(algorithm: &Algorithm, batch_norm: &BatchNorm<'_>) -> Result<Option<Vec<f32>>> {
    let weight = batch_norm.weight;
    if weight.dims() != [algorithm.output()[3]] || weight.dtype() != DType::F32 {
        return Ok(None);
    }
    let weight: Vec<f32> = weight.to_vec1()?;
    let sign = |weight: f32| (weight != 0.0).then_some(if weight < 0.0 { -1.0 } else { 1.0 });
    Ok(weight.into_iter().map(sign).collect())
}

/// The same by the channels-first op of candle's graph.
fn channels_first(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, config: &Conv2dConfig) -> Result<Tensor> {
    element::require_float(OP, x)?;
    let y = crate::conv2d(&to_channels_first(OP, x)?, weight, bias, config)?;
    Ok(to_channels_last(&y)?)
}

thread_local! {
    static WINOGRAD: Cell<bool> = const { Cell::new(true) };
}

/// Runs `f` with every convolution of this thread by direct products, without Winograd transforms: several times slower, with
/// a tenth of the rounding error. For telling rounding from a fault.
pub fn without_winograd<T>(f: impl FnOnce() -> T) -> T {
    /// Sets the switch back, also where `f` panics.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            WINOGRAD.set(self.0);
        }
    }
    let _restore = Restore(WINOGRAD.replace(false));
    f()
}

#[cfg(test)]
mod tests;
