//! Batch norm folded into the convolution before it, for inference.

use candle_core::Tensor;

use super::super::batch_norm::{Activation, BatchNorm};
use super::algorithm::Algorithm;
use crate::batch_norm;
use crate::conv2d::winograd::hooks::{Add, Bias, Gelu, Relu, Then};
use crate::tape::{Tape, Value, elements, tensor};
use crate::{Error, Result};

impl Tape {
    /// `activation(conv2d(x, weight · scale) + shift)`.
    ///
    /// ```text
    /// scale = bn_weight / √(running_var + eps),  shift = (bias − running_mean) · scale + bn_bias
    /// ```
    pub(super) fn convolve_folded(
        &mut self,
        x: &Value,
        weight: &Tensor,
        bias: Option<&Tensor>,
        algorithm: Algorithm,
        batch_norm: &BatchNorm<'_>,
        activation: Activation<'_>,
    ) -> Result<Value> {
        let output = algorithm.output();
        let (weight, bias) = fold(weight, bias, batch_norm, output)?;
        let input = algorithm.input(x)?;
        let first = Bias { bias: &bias };
        let (y, _) = match activation {
            Activation::None => algorithm.run(&input, &weight, &first)?,
            Activation::Relu => algorithm.run(&input, &weight, &Then { first, second: Relu })?,
            Activation::Gelu => algorithm.run(&input, &weight, &Then { first, second: Gelu })?,
            Activation::AddRelu(residual) => {
                self.check(residual)?;
                if residual.dims() != output {
                    return Err(Error::ShapeMismatch {
                        op: "batch_norm residual",
                        expected: format!("{output:?}"),
                        got: residual.dims().to_vec(),
                    });
                }
                elements(&residual.tensor()?, |addend| {
                    let first = Then {
                        first,
                        second: Add { addend },
                    };
                    algorithm.run(&input, &weight, &Then { first, second: Relu })
                })??
            }
        };
        Ok(self.plain(false, tensor(y, &output)?))
    }
}

/// The weight and bias of the convolution that is also the batch norm.
fn fold(
    weight: &Tensor,
    bias: Option<&Tensor>,
    batch_norm: &BatchNorm<'_>,
    output: [usize; 4],
) -> Result<(Tensor, Vec<f32>)> {
    let BatchNorm {
        weight: bn_weight,
        bias: bn_bias,
        running_mean,
        running_var,
        config,
        ..
    } = *batch_norm;
    let like = weight
        .narrow(1, 0, 1)?
        .narrow(2, 0, 1)?
        .narrow(3, 0, 1)?
        .reshape((1, output[3], 1))?;
    batch_norm::check(&like, [bn_weight, bn_bias, running_mean, running_var])?;
    let read = |tensor: &Tensor| tensor.to_vec1::<f32>();
    let (bn_weight, bn_bias, mean, var) = (
        read(bn_weight)?,
        read(bn_bias)?,
        read(running_mean)?,
        read(running_var)?,
    );
    let scale: Vec<f64> = bn_weight
        .iter()
        .zip(&var)
        .map(|(weight, var)| f64::from(*weight) / (f64::from(*var) + config.eps).sqrt())
        .collect();
    let bias = bias.map(read).transpose()?;
    let shift = (0..scale.len()).map(|k| {
        let bias = bias.as_ref().map_or(0.0, |bias| f64::from(bias[k]));
        ((bias - f64::from(mean[k])) * scale[k] + f64::from(bn_bias[k])) as f32
    });
    let per_channel = weight.elem_count() / scale.len();
    let folded = elements(weight, |weight| {
        let channels = weight.chunks_exact(per_channel).zip(&scale);
        channels
            .flat_map(|(weight, scale)| weight.iter().map(move |w| (f64::from(*w) * scale) as f32))
            .collect::<Vec<f32>>()
    })?;
    Ok((tensor(folded, weight.dims())?, shift.collect()))
}
