//! Gaussian error linear unit, in its exact form. candle's own is a scalar loop, and its backward has six digits of a constant.

mod kernel;
pub(crate) mod normal;

use std::f64::consts::FRAC_1_SQRT_2;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor};

#[cfg(doc)]
use crate::Error;
use crate::Result;
use crate::element;
use crate::tape::{Backward, Gradient, Gradients, Tape, Value, elements, tensor};

const OP: &str = "gelu";

/// `y = x · Φ(x)`, with `Φ` the distribution function of the standard normal distribution.
///
/// ```text
/// Φ(x) = ½ (1 + erf(x / √2)),  dy/dx = Φ(x) + x · φ(x),  φ(x) = exp(−x² / 2) / √(2π)
/// ```
///
/// In `f32` on the CPU, `Φ` is within 3e-7 of the exact value, and the derivative within 4e-7 for `|x|` up to 1e30; for
/// `-13 < x < 0` the relative error of `y` is about as small, where `1 + erf` cancels. Further out `exp` is held at `exp(-87)`.
///
/// # Shapes
/// Any.
///
/// # Errors
/// [`Error::DTypeMismatch`].
///
/// # Source
/// Hendrycks and Gimpel 2016; `torch.nn.functional.gelu(x)`, that is `approximate="none"`; proved by
/// `tests/golden/gelu.safetensors`.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    element::require_float(OP, x)?;
    if !x.device().is_cpu() {
        return Ok(composite(x)?);
    }
    Ok(x.contiguous()?.apply_op1(Gelu)?)
}

/// The same value and gradient from candle's own ops.
fn composite(x: &Tensor) -> candle_core::Result<Tensor> {
    x.mul(&(((x * FRAC_1_SQRT_2)?.erf()? + 1.0)? * 0.5)?)
}

struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let y = match x.dtype() {
            DType::F32 => CpuStorage::F32(kernel::forward(element::slice(OP, x, layout)?)),
            DType::F64 => CpuStorage::F64(kernel::forward_f64(element::slice(OP, x, layout)?)),
            got => return Err(element::not_a_float(OP, got).into()),
        };
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dx = match grad.dtype() {
            DType::F32 => {
                let mut g = element::with_slice(OP, grad, <[f32]>::to_vec)?;
                element::with_slice(OP, x, |x| kernel::backward(x, &mut g))?;
                Tensor::from_vec(g, x.shape(), &Device::Cpu)?
            }
            DType::F64 => {
                let mut g = element::with_slice(OP, grad, <[f64]>::to_vec)?;
                element::with_slice(OP, x, |x| kernel::backward_f64(x, &mut g))?;
                Tensor::from_vec(g, x.shape(), &Device::Cpu)?
            }
            got => return Err(element::not_a_float(OP, got).into()),
        };
        Ok(Some(dx))
    }
}

impl Tape {
    /// `x · Φ(x)` of each element, as [`gelu`].
    ///
    /// After a batch norm, [`Activation::Gelu`](crate::channels_last::Activation::Gelu) saves passes over memory.
    ///
    /// # Errors
    /// Those of [`gelu`], and [`Error::ForeignValue`] for another tape's value.
    pub fn gelu(&mut self, x: &Value) -> Result<Value> {
        self.check(x)?;
        #[cfg(feature = "cuda")]
        if let Some(on_gpu) = x.on_gpu() {
            return crate::cuda::pointwise(self, on_gpu, crate::cuda::Function::Gelu);
        }
        let Some((x_node, _)) = x.as_recorded() else {
            return Ok(self.in_graph(gelu(&x.whole()?)?));
        };
        let x = x.whole()?;
        let y = elements(&x, kernel::forward)?;
        self.keep(x_node);
        let y = self.plain(self.needs_grad(x_node), tensor(y, x.dims())?);
        self.record(&y, GeluOp { x, x_node });
        Ok(y)
    }
}

/// A gelu that has run in a section.
struct GeluOp {
    x: Tensor,
    x_node: usize,
}

impl Backward for GeluOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let mut g = gradient.plain().into_vec()?;
        elements(&self.x, |x| kernel::backward(x, &mut g))?;
        gradients.add(self.x_node, Gradient::owned(g))
    }
}

#[cfg(test)]
mod tests;
