//! The batch-norm layer.

use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};
use kestrel_kernels::BatchNormConfig;
use kestrel_kernels::channels_last::{Activation, BatchNorm};
use kestrel_kernels::tape::{Tape, Value};

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

    /// `activation(batch_norm(x))`: normalises by the batch in training (and moves the running statistics), by the running
    /// statistics otherwise.
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
            weight: &self.weight,
            bias: &self.bias,
            running_mean: &self.running_mean,
            running_var: &self.running_var,
            config: self.config,
            training: mode.is_train(),
        }
    }
}
