//! The fully connected layer.

use candle_core::Tensor;
use kestrel_kernels::tape::{Tape, Value};

use crate::init::default_uniform;
use crate::{ParamBuilder, Parameter, Result};

/// `y = x W^T + b` with `weight [out, in]` and, unless it was made without, `bias [out]`, initialised as PyTorch's
/// `nn.Linear`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Parameter,
    bias: Option<Parameter>,
}

impl Linear {
    /// A layer whose parameters are `weight` and `bias` under the builder's prefix.
    ///
    /// # Errors
    /// Where the store holds the names with other shapes.
    pub fn new(in_features: usize, out_features: usize, builder: &ParamBuilder) -> Result<Self> {
        let init = default_uniform(in_features);
        let weight = builder.parameter((out_features, in_features), "weight", init)?;
        let bias = Some(builder.parameter(out_features, "bias", init)?);
        Ok(Self { weight, bias })
    }

    /// A layer whose only parameter is `weight` under the builder's prefix.
    ///
    /// # Errors
    /// Where the store holds the name with another shape.
    pub fn without_bias(in_features: usize, out_features: usize, builder: &ParamBuilder) -> Result<Self> {
        let init = default_uniform(in_features);
        let weight = builder.parameter((out_features, in_features), "weight", init)?;
        Ok(Self { weight, bias: None })
    }

    /// `[N, in]` → `[N, out]`.
    ///
    /// # Errors
    /// Where the input has other features.
    pub fn forward(&self, tape: &mut Tape, x: &Value) -> kestrel_kernels::Result<Value> {
        tape.linear(x, self.weight.tensor(), self.bias(), false)
    }

    /// `relu(forward(x))`, fused.
    ///
    /// # Errors
    /// Where the input has other features.
    pub fn forward_relu(&self, tape: &mut Tape, x: &Value) -> kestrel_kernels::Result<Value> {
        tape.linear(x, self.weight.tensor(), self.bias(), true)
    }

    fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref().map(Parameter::tensor)
    }
}
