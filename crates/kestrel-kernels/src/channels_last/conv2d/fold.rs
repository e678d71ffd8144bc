//! Batch norm folded into the convolution before it, for inference.

use candle_core::{DType, Device, Tensor};

use super::super::batch_norm::{Activation, BatchNorm};
use super::algorithm::Algorithm;
use crate::batch_norm;
use crate::conv2d::hooks::{Affine, Gelu, MaxPool, Normalize, NormalizeAddRelu, Then};
use crate::tape::{Tape, Value, elements, tensor};
use crate::{Error, Result};

impl Tape {
    /// `activation((conv2d(x) + bias − running_mean) · scale + bn_bias)`, each output finished before it is stored.
    ///
    /// ```text
    /// scale = bn_weight / √(running_var + eps)
    /// ```
    ///
    /// The weights stay as they are: to multiply each of them would be a pass over memory for every batch, and to multiply the
    /// sums is none.
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
        let folded = Folded::new(bias, batch_norm, output)?;
        let affine = folded.affine();
        let weight = weight.contiguous()?;
        let input = algorithm.input(x)?;
        let ran = match activation {
            Activation::None => algorithm.run(&input, &weight, &Normalize::<false>(affine))?,
            Activation::Relu => algorithm.run(&input, &weight, &Normalize::<true>(affine))?,
            Activation::Gelu => {
                let (first, second) = (Normalize::<false>(affine), Gelu);
                algorithm.run(&input, &weight, &Then { first, second })?
            }
            Activation::AddRelu(residual) => {
                self.check(residual)?;
                if residual.dims() != output {
                    return Err(Error::ShapeMismatch {
                        op: "batch_norm residual",
                        expected: format!("{output:?}"),
                        got: residual.dims().to_vec(),
                    });
                }
                elements(&residual.whole()?, |residual| {
                    let epilogue = NormalizeAddRelu {
                        affine,
                        residual,
                        residual_affine: None,
                    };
                    algorithm.run(&input, &weight, &epilogue)
                })??
            }
        };
        Ok(self.plain(false, tensor(ran.y, &output)?))
    }

    /// The largest of each 2x2 of `relu` of the same, for an algorithm that can pool.
    pub(super) fn convolve_folded_and_pool(
        &mut self,
        x: &Value,
        weight: &Tensor,
        bias: Option<&Tensor>,
        algorithm: Algorithm,
        batch_norm: &BatchNorm<'_>,
    ) -> Result<Value> {
        let [n, p, q, k] = algorithm.output();
        let folded = Folded::new(bias, batch_norm, [n, p, q, k])?;
        let epilogue = MaxPool(Normalize::<true>(folded.affine()));
        let ran = algorithm.run(&algorithm.input(x)?, &weight.contiguous()?, &epilogue)?;
        Ok(self.plain(false, tensor(ran.pooled, &[n, p / 2, q / 2, k])?))
    }
}

/// What batch norm in evaluation does to each channel of a convolution.
struct Folded {
    center: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Folded {
    fn new(bias: Option<&Tensor>, batch_norm: &BatchNorm<'_>, output: [usize; 4]) -> Result<Self> {
        let BatchNorm {
            weight,
            bias: shift,
            running_mean,
            running_var,
            config,
            ..
        } = *batch_norm;
        let like = Tensor::zeros((1, output[3], 1), DType::F32, &Device::Cpu)?;
        batch_norm::check(&like, [weight, shift, running_mean, running_var])?;
        let read = |tensor: &Tensor| tensor.to_vec1::<f32>();
        let scale = read(weight)?.into_iter().zip(read(running_var)?);
        let scale = scale.map(|(weight, var)| (f64::from(weight) / (f64::from(var) + config.eps).sqrt()) as f32);
        let mut center = read(running_mean)?;
        if let Some(bias) = bias {
            for (center, bias) in center.iter_mut().zip(read(bias)?) {
                *center -= bias;
            }
        }
        Ok(Self {
            center,
            scale: scale.collect(),
            shift: read(shift)?,
        })
    }

    fn affine(&self) -> Affine<'_> {
        Affine {
            center: &self.center,
            scale: &self.scale,
            shift: &self.shift,
        }
    }
}
