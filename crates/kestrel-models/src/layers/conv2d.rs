//! The convolution layer.

use candle_core::Tensor;
use candle_nn::Init;
use kestrel_kernels::Conv2dConfig;
use kestrel_kernels::channels_last::Activation;
use kestrel_kernels::tape::{Tape, Value};

use super::BatchNorm2d;
use crate::init::default_uniform;
use crate::{Mode, ParamBuilder, Parameter, Result};

/// A 2-d convolution with `weight [out, in, k, k]` and, unless it was made without, `bias [out]`.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Parameter,
    bias: Option<Parameter>,
    config: Conv2dConfig,
}

impl Conv2d {
    /// A layer whose parameters are `weight` and `bias` under the builder's prefix, initialised as PyTorch's `nn.Conv2d`.
    ///
    /// # Errors
    /// Where the store holds the names with other shapes.
    pub fn new(
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        config: Conv2dConfig,
        builder: &ParamBuilder,
    ) -> Result<Self> {
        let per_group = in_channels / config.groups.max(1);
        let init = default_uniform(per_group * kernel * kernel);
        let weight = builder.parameter((out_channels, per_group, kernel, kernel), "weight", init)?;
        let bias = Some(builder.parameter(out_channels, "bias", init)?);
        Ok(Self { weight, bias, config })
    }

    /// A layer whose only parameter is `weight` under the builder's prefix.
    ///
    /// # Errors
    /// Where the store holds the name with another shape.
    pub fn without_bias(
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        config: Conv2dConfig,
        init: Init,
        builder: &ParamBuilder,
    ) -> Result<Self> {
        let per_group = in_channels / config.groups.max(1);
        let weight = builder.parameter((out_channels, per_group, kernel, kernel), "weight", init)?;
        let bias = None;
        Ok(Self { weight, bias, config })
    }

    /// A layer whose `weight` is never trained; its `bias` is, and begins at 0.
    ///
    /// # Errors
    /// Where the store holds the names with other shapes.
    pub fn with_fixed_weight(
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        config: Conv2dConfig,
        init: Init,
        builder: &ParamBuilder,
    ) -> Result<Self> {
        let per_group = in_channels / config.groups.max(1);
        let weight = builder.fixed((out_channels, per_group, kernel, kernel), "weight", init)?;
        let bias = Some(builder.parameter(out_channels, "bias", Init::Const(0.0))?);
        Ok(Self { weight, bias, config })
    }

    /// `[out, in, k, k]`.
    pub fn weight(&self) -> &Parameter {
        &self.weight
    }

    /// Stride, padding, dilation and groups.
    pub fn config(&self) -> Conv2dConfig {
        self.config
    }

    /// `[N, H, W, in]` → `[N, H', W', out]`.
    ///
    /// # Errors
    /// Where the input has other channels or is smaller than the kernel.
    pub fn forward(&self, tape: &mut Tape, x: &Value) -> kestrel_kernels::Result<Value> {
        tape.conv2d(x, self.weight.tensor(), self.bias(), &self.config)
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
            self.weight.tensor(),
            self.bias(),
            &self.config,
            &batch_norm.op(mode),
            activation,
        )
    }

    /// `max_pool2d(relu(batch_norm(conv(x))), 2)`, fused where the convolution can pool.
    ///
    /// # Errors
    /// Those of [`forward_batch_norm`](Self::forward_batch_norm), and for an output smaller than 2x2.
    pub fn forward_batch_norm_relu_max_pool(
        &self,
        tape: &mut Tape,
        x: &Value,
        batch_norm: &BatchNorm2d,
        mode: Mode,
    ) -> kestrel_kernels::Result<Value> {
        tape.conv2d_batch_norm_relu_max_pool(x, self.weight.tensor(), self.bias(), &self.config, &batch_norm.op(mode))
    }

    fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref().map(Parameter::tensor)
    }
}
