//! Rounding, as an op of candle's graph and of a tape: forward the values, backward their gradient.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::{Precision, autocast};
use crate::channels_last::batch_norm::rows;
use crate::channels_last::{Activation, BatchNorm};
use crate::relu::gate;
use crate::tape::{Backward, Data, Gradient, Gradients, Tape, Value, elements, tensor};
use crate::{Result, element};

const OP: &str = "autocast";

/// Elements of a piece of work.
const BLOCK: usize = 1 << 15;

/// Elements that are in the narrow type at once.
const NARROW: usize = 256;

/// Rounds each element to the nearest number of the type, to the even one of two.
pub(super) fn round_elements(x: &mut [f32], precision: Precision) {
    x.par_chunks_mut(BLOCK).for_each(|x| match precision {
        Precision::F32 => {}
        Precision::Bf16 => through(x, &mut [bf16::ZERO; NARROW]),
        Precision::F16 => through(x, &mut [f16::ZERO; NARROW]),
    });
}

fn through<T>(x: &mut [f32], narrow: &mut [T; NARROW])
where
    [T]: HalfFloatSliceExt,
{
    for x in x.chunks_mut(NARROW) {
        let narrow = &mut narrow[..x.len()];
        narrow.convert_from_f32_slice(x);
        narrow.convert_to_f32_slice(x);
    }
}

/// `f32` on the CPU rounded; its gradient is rounded too.
pub(crate) fn round(x: &Tensor, precision: Precision) -> candle_core::Result<Tensor> {
    x.contiguous()?.apply_op1(Round(precision))
}

struct Round(Precision);

impl Round {
    fn of(&self, x: &[f32]) -> Vec<f32> {
        let mut y = x.to_vec();
        round_elements(&mut y, self.0);
        y
    }
}

impl CustomOp1 for Round {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = self.of(element::slice(OP, x, layout)?);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dx = element::with_slice(OP, grad, |dy| self.of(dy))?;
        Ok(Some(Tensor::from_vec(dx, grad.shape(), &Device::Cpu)?))
    }
}

impl Tape {
    /// The result, rounded, of `f` of the arguments of an affine op, rounded, and cut off at 0 if `relu`; likewise backward.
    pub(crate) fn rounded(
        &mut self,
        precision: Precision,
        (x, weight, bias): (&Value, &Tensor, Option<&Tensor>),
        relu: bool,
        f: impl FnOnce(&mut Tape, &Value, &Tensor, Option<&Tensor>) -> Result<Value>,
    ) -> Result<Value> {
        let x = self.round(x, precision, false)?;
        let weight = self.round_leaf(weight, precision)?;
        let bias = bias.map(|bias| self.round_leaf(bias, precision)).transpose()?;
        let y = autocast(Precision::F32, || f(self, &x, &weight, bias.as_ref()))?;
        self.round(&y, precision, relu)
    }

    /// Batch norm and what follows it, each result rounded; likewise backward.
    pub(crate) fn rounded_batch_norm(
        &mut self,
        precision: Precision,
        x: &Value,
        batch_norm: &BatchNorm<'_>,
        activation: Activation<'_>,
    ) -> Result<Value> {
        let x = self.round(x, precision, false)?;
        let y = autocast(Precision::F32, || self.batch_norm(&x, batch_norm, Activation::None))?;
        match activation {
            Activation::None => self.round(&y, precision, false),
            Activation::Relu => self.round(&y, precision, true),
            Activation::Gelu => {
                let y = self.round(&y, precision, false)?;
                let y = self.gelu(&y)?;
                self.round(&y, precision, false)
            }
            Activation::AddRelu(residual) => {
                let y = self.round(&y, precision, false)?;
                let sum = self.add(&y, residual)?;
                self.round(&sum, precision, true)
            }
        }
    }

    /// A parameter rounded: an op that takes it for a leaf finds its node.
    fn round_leaf(&mut self, parameter: &Tensor, precision: Precision) -> Result<Tensor> {
        let leaf = self.leaf(parameter)?;
        let value = self.round(&leaf, precision, false)?;
        let rounded = value.whole()?;
        if let Some((node, _)) = value.as_recorded() {
            self.name_leaf(&rounded, node);
        }
        Ok(rounded)
    }

    /// A value rounded, and cut off at 0 if `relu`; its gradient is rounded too. One that is in candle's graph stays as it is.
    fn round(&mut self, x: &Value, precision: Precision, relu: bool) -> Result<Value> {
        self.check(x)?;
        let Some((x_node, data)) = x.as_recorded() else {
            return Ok(x.clone());
        };
        // What is rounded already has a gradient of its own to round, and its memory is shared.
        let shared = !relu && self.rounded_to(x_node) == Some(precision);
        let y = match data {
            Data::Plain(x) if shared => x.clone(),
            Data::Plain(x) => tensor(elements(x, |x| rounded_elements(x, precision, relu))?, x.dims())?,
            Data::Normalized(normalized) => {
                // Not `Normalized::tensor`, which would keep a copy that nobody reads again.
                let whole = rows::normalize(normalized)?;
                tensor(
                    elements(&whole, |x| rounded_elements(x, precision, relu))?,
                    whole.dims(),
                )?
            }
        };
        let value = self.plain(self.needs_grad(x_node), y.clone());
        if let Some((node, _)) = value.as_recorded() {
            self.set_rounded(node, precision);
            if shared || relu {
                self.keep(node);
            }
        }
        if shared {
            self.keep(x_node);
        }
        let op = RoundOp {
            precision,
            x_node,
            output: relu.then_some(y),
        };
        self.record(&value, op);
        Ok(value)
    }
}

fn rounded_elements(x: &[f32], precision: Precision, relu: bool) -> Vec<f32> {
    let mut y = Round(precision).of(x);
    if relu {
        y = gate(&y, &y);
    }
    y
}

/// A rounding that has run.
struct RoundOp {
    precision: Precision,
    x_node: usize,
    /// If a relu has cut it off.
    output: Option<Tensor>,
}

impl Backward for RoundOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let mut g = gradient.plain().into_vec()?;
        round_elements(&mut g, self.precision);
        if let Some(y) = &self.output {
            g = elements(y, |y| gate(y, &g))?;
        }
        gradients.add(self.x_node, Gradient::owned(g))
    }
}
