//! The fully connected layer: candle's, with PyTorch's initialisation.

use candle_nn::{Linear, VarBuilder};

use crate::Result;
use crate::init::default_uniform;

/// `y = x W^T + b` with `weight [out, in]` and `bias [out]`, initialised as PyTorch's `nn.Linear`.
///
/// # Errors
/// Where the store holds the names with other shapes.
pub fn linear(in_features: usize, out_features: usize, vb: &VarBuilder<'_>) -> Result<Linear> {
    let init = default_uniform(in_features);
    let weight = vb.get_with_hints((out_features, in_features), "weight", init)?;
    let bias = vb.get_with_hints(out_features, "bias", init)?;
    Ok(Linear::new(weight, Some(bias)))
}
