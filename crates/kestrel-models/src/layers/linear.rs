//! The fully connected layer.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use kestrel_kernels::tape::{Tape, Value};

use crate::Result;
use crate::init::default_uniform;

/// `y = x W^T + b` with `weight [out, in]` and `bias [out]`, initialised as PyTorch's `nn.Linear`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// A layer whose parameters are `weight` and `bias` under the builder's prefix.
    ///
    /// # Errors
    /// Where the store holds the names with other shapes.
    pub fn new(in_features: usize, out_features: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let init = default_uniform(in_features);
        let weight = vb.get_with_hints((out_features, in_features), "weight", init)?;
        let bias = vb.get_with_hints(out_features, "bias", init)?;
        Ok(Self { weight, bias })
    }

    /// `[N, in]` → `[N, out]`.
    ///
    /// # Errors
    /// Where the input has other features.
    pub fn forward(&self, tape: &mut Tape, x: &Value) -> kestrel_kernels::Result<Value> {
        tape.linear(x, &self.weight, Some(&self.bias), false)
    }

    /// `relu(forward(x))`, fused.
    ///
    /// # Errors
    /// Where the input has other features.
    pub fn forward_relu(&self, tape: &mut Tape, x: &Value) -> kestrel_kernels::Result<Value> {
        tape.linear(x, &self.weight, Some(&self.bias), true)
    }
}
