//! The convolution layer.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use kestrel_kernels::Conv2dConfig;
use kestrel_kernels::channels_last::Activation;
use kestrel_kernels::tape::{Tape, Value};

use super::BatchNorm2d;
use crate::init::default_uniform;
use crate::{Mode, Result};

/// A 2-d convolution with `weight [out, in, k, k]` and `bias [out]`, initialised as PyTorch's `nn.Conv2d`.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    config: Conv2dConfig,
}

impl Conv2d {
    /// A layer whose parameters are `weight` and `bias` under the builder's prefix.
    ///
    /// # Errors
    /// Where the store holds the names with other shapes.
    pub fn new(
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        config: Conv2dConfig,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        let per_group = in_channels / config.groups.max(1);
        let init = default_uniform(per_group * kernel * kernel);
        let weight = vb.get_with_hints((out_channels, per_group, kernel, kernel), "weight", init)?;
        let bias = vb.get_with_hints(out_channels, "bias", init)?;
        Ok(Self { weight, bias, config })
    }

    /// `[N, H, W, in]` → `[N, H', W', out]`.
    ///
    /// # Errors
    /// Where the input has other channels or is smaller than the kernel.
    pub fn forward(&self, tape: &mut Tape, x: &Value) -> kestrel_kernels::Result<Value> {
        tape.conv2d(x, &self.weight, Some(&self.bias), &self.config)
    }

    /// `activation(batch_norm(conv(x)))`, fused; torchvision's `Conv2dNormActivation`.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward), and where batch norm has other channels or in training a channel has a single
    /// value.
    pub fn forward_batch_norm(
        &self,
        tape: &mut Tape,
        x: &Value,
        batch_norm: &BatchNorm2d,
        activation: Activation<'_>,
        mode: Mode,
    ) -> kestrel_kernels::Result<Value> {
        tape.conv2d_batch_norm(
            x,
            &self.weight,
            Some(&self.bias),
            &self.config,
            &batch_norm.op(mode),
            activation,
        )
    }
}
