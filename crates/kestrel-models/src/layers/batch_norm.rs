//! The batch-norm layer.

use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};
use kestrel_kernels::BatchNormConfig;
use kestrel_kernels::channels_last::{batch_norm_relu_eval, batch_norm_relu_train};

use crate::{Mode, Result};

/// Batch normalisation over `[N, H, W, C]`, as PyTorch's `nn.BatchNorm2d` with its defaults: eps 1e-5, and the running
/// statistics moving by `running += 0.1 * (batch - running)`.
#[derive(Clone, Debug)]
pub struct BatchNorm2d {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    config: BatchNormConfig,
}

impl BatchNorm2d {
    /// A layer with `weight`, `bias`, `running_mean` and `running_var` under the builder's prefix.
    ///
    /// # Errors
    /// Where the store holds the names with other shapes.
    pub fn new(channels: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let get = |name, value| vb.get_with_hints(channels, name, Init::Const(value));
        Ok(Self {
            weight: get("weight", 1.0)?,
            bias: get("bias", 0.0)?,
            running_mean: get("running_mean", 0.0)?,
            running_var: get("running_var", 1.0)?,
            config: BatchNormConfig::default(),
        })
    }

    /// `relu(batch_norm(x))` in one op: normalises by the batch in training (and moves the running statistics), by the
    /// running statistics otherwise.
    ///
    /// # Errors
    /// Where the channels differ, or in training a channel has a single value.
    pub fn forward_relu(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let Self {
            weight,
            bias,
            running_mean,
            running_var,
            config,
        } = self;
        Ok(if mode.is_train() {
            batch_norm_relu_train(x, weight, bias, running_mean, running_var, config)?
        } else {
            batch_norm_relu_eval(x, weight, bias, running_mean, running_var, config.eps)?
        })
    }
}
