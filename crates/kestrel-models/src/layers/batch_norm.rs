//! The batch-norm layer.

use candle_core::Tensor;
use candle_nn::Init;
use kestrel_kernels::BatchNormConfig;
use kestrel_kernels::channels_last::{Activation, BatchNorm};
use kestrel_kernels::tape::{Tape, Value};

use crate::{Mode, ParamBuilder, Parameter, Result};

/// Batch normalisation over `[N, H, W, C]`, as PyTorch's `nn.BatchNorm2d`; unless told otherwise with its defaults: eps 1e-5,
/// and the running statistics moving by `running += 0.1 * (batch - running)`.
#[derive(Clone, Debug)]
pub struct BatchNorm2d {
    weight: Parameter,
    bias: Parameter,
    running_mean: Tensor,
    running_var: Tensor,
    config: BatchNormConfig,
}

impl BatchNorm2d {
    /// A layer with `weight`, `bias`, `running_mean` and `running_var` under the builder's prefix.
    ///
    /// # Errors
    /// Where the store holds the names with other shapes.
    pub fn new(channels: usize, builder: &ParamBuilder) -> Result<Self> {
        let weight = builder.parameter(channels, "weight", Init::Const(1.0))?;
        Self::of(weight, channels, BatchNormConfig::default(), builder)
    }

    /// A layer whose `weight` stays at 1, with constants of its own.
    ///
    /// # Errors
    /// Where the store holds the names with other shapes.
    pub fn with_fixed_weight(channels: usize, config: BatchNormConfig, builder: &ParamBuilder) -> Result<Self> {
        let weight = builder.fixed(channels, "weight", Init::Const(1.0))?;
        Self::of(weight, channels, config, builder)
    }

    fn of(weight: Parameter, channels: usize, config: BatchNormConfig, builder: &ParamBuilder) -> Result<Self> {
        Ok(Self {
            weight,
            bias: builder.parameter(channels, "bias", Init::Const(0.0))?,
            running_mean: builder.buffer(channels, "running_mean", 0.0)?,
            running_var: builder.buffer(channels, "running_var", 1.0)?,
            config,
        })
    }

    /// `activation(batch_norm(x))`: normalises by the batch in training (and moves the running statistics), by the running
    /// statistics otherwise. A layer whose weight and bias are frozen never normalises by the batch.
    ///
    /// # Errors
    /// Where the channels differ, or in training a channel has a single value.
    pub fn forward(
        &self,
        tape: &mut Tape,
        x: &Value,
        activation: Activation<'_>,
        mode: Mode,
    ) -> kestrel_kernels::Result<Value> {
        tape.batch_norm(x, &self.op(mode), activation)
    }

    /// The layer as the op takes it.
    pub(super) fn op(&self, mode: Mode) -> BatchNorm<'_> {
        BatchNorm {
            weight: self.weight.tensor(),
            bias: self.bias.tensor(),
            running_mean: &self.running_mean,
            running_var: &self.running_var,
            config: self.config,
            training: mode.is_train() && !(self.weight.is_frozen() && self.bias.is_frozen()),
        }
    }
}
