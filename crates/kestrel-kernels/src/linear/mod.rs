//! Fully connected layer, by itself and fused with relu. candle's own is as fast forward, but its backward sums transposed
//! gradients element by element.

pub(crate) mod kernel;
mod record;

use crate::element::{self, Element, dispatch};
use crate::relu::gate;
use crate::{Error, Result, autocast};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Device, Layout, Shape, Tensor};
use kernel::Size;

const OP: &str = "linear";

/// An affine map of each row.
///
/// ```text
/// y[n, o] = bias[o] + Σ_i x[n, i] · weight[o, i]
/// ```
///
/// The backward computes no gradient for an argument that no variable leads to.
///
/// # Shapes
/// `x` `[N, I]`, `weight` `[O, I]`, `bias` `[O]`; the result is `[N, O]`.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`].
///
/// # Source
/// `torch.nn.functional.linear`; proved by `tests/golden/linear.safetensors`.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    apply(x, weight, bias, false)
}

/// An affine map of each row, cut off at 0.
///
/// ```text
/// y[n, o] = max(bias[o] + Σ_i x[n, i] · weight[o, i], 0)
/// ```
///
/// The gradient is 0 where `y` is; NaN stays NaN. The same as [`relu`](crate::relu()) of [`linear`], without the pass over
/// memory between them.
///
/// # Shapes
/// `x` `[N, I]`, `weight` `[O, I]`, `bias` `[O]`; the result is `[N, O]`.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`].
///
/// # Source
/// `torch.nn.functional.relu(torch.nn.functional.linear(...))`; proved by `tests/golden/linear.safetensors`.
pub fn linear_relu(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    apply(x, weight, bias, true)
}

/// The sizes, once all element types and shapes agree.
fn check(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Size> {
    element::require_float(OP, x)?;
    element::require_same_dtype("linear weight", weight, x)?;
    if let Some(bias) = bias {
        element::require_same_dtype("linear bias", bias, x)?;
    }
    check_shapes(x, weight, bias)
}

/// The sizes, once all shapes agree.
pub(crate) fn check_shapes(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Size> {
    let mismatch = |op, expected: String, got: &Tensor| Error::ShapeMismatch {
        op,
        expected,
        got: got.dims().to_vec(),
    };
    let (rows, inputs) = match *x.dims() {
        [rows, inputs] if inputs > 0 => (rows, inputs),
        _ => return Err(mismatch("linear input", "[N, I]".to_owned(), x)),
    };
    let outputs = match *weight.dims() {
        [outputs, i] if outputs > 0 && i == inputs => outputs,
        _ => return Err(mismatch("linear weight", format!("[O, {inputs}]"), weight)),
    };
    if let Some(bias) = bias {
        element::require_shape("linear bias", bias, &[outputs])?;
    }
    Ok(Size { rows, inputs, outputs })
}

fn apply(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, relu: bool) -> Result<Tensor> {
    let size = check(x, weight, bias)?;
    if let Some(precision) = autocast::of_tensor(x) {
        let y = autocast::rounded(precision, [x, weight], bias, |x, weight, bias| {
            apply(x, weight, bias, false)
        })?;
        return if relu { crate::relu(&y) } else { Ok(y) };
    }
    if !x.device().is_cpu() {
        let y = composite(x, weight, bias)?;
        return if relu { crate::relu(&y) } else { Ok(y) };
    }
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let op = Linear { size, relu };
    Ok(match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, op)?,
        None => x.apply_op2(&weight, op)?,
    })
}

/// The same value and gradient from candle's own ops.
fn composite(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> candle_core::Result<Tensor> {
    let y = x.matmul(&weight.t()?)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

/// The op that candle's autograd records; arguments are contiguous.
struct Linear {
    size: Size,
    relu: bool,
}

impl Linear {
    fn forward<T: Element>(&self, x: &[T], weight: &[T], bias: Option<&[T]>) -> (CpuStorage, Shape) {
        let Size { rows, outputs, .. } = self.size;
        let mut y = vec![T::ZERO; rows * outputs];
        kernel::forward(self.size, x, weight, bias, self.relu, &mut y);
        (T::to_cpu_storage_owned(y), Shape::from((rows, outputs)))
    }

    /// The gradient before the relu, given the op's output and its gradient.
    fn before_relu<T: Element>(&self, y: &Tensor, grad: &Tensor) -> candle_core::Result<Tensor> {
        if !self.relu {
            return Ok(grad.clone());
        }
        let dz = element::with_slice::<T, _>(OP, y, |y| element::with_slice::<T, _>(OP, grad, |dy| gate(y, dy)))??;
        Tensor::from_vec(dz, y.shape(), &Device::Cpu)
    }

    /// The gradients of input and weight, each only if something needs it.
    fn backward<T: Element>(
        &self,
        x: &Tensor,
        weight: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let dx = self.gradient::<T>(x, dy, Some(weight), kernel::backward_input)?;
        let dweight = self.gradient::<T>(weight, dy, Some(x), kernel::backward_weight)?;
        Ok((dx, dweight))
    }

    fn backward_bias<T: Element>(&self, bias: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        self.gradient::<T>(bias, dy, None, |size, dy, _| kernel::backward_bias(size, dy))
    }

    /// The gradient of `of`, which `make` makes from `dy` and the other argument.
    fn gradient<T: Element>(
        &self,
        of: &Tensor,
        dy: &Tensor,
        other: Option<&Tensor>,
        make: impl FnOnce(Size, &[T], &[T]) -> Vec<T>,
    ) -> candle_core::Result<Option<Tensor>> {
        if !of.track_op() {
            return Ok(None);
        }
        let gradient = element::with_slice::<T, _>(OP, dy, |dy| match other {
            Some(other) => element::with_slice::<T, _>(OP, other, |other| make(self.size, dy, other)),
            None => Ok(make(self.size, dy, &[])),
        })??;
        Ok(Some(Tensor::from_vec(gradient, of.shape(), &Device::Cpu)?))
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        dispatch!(OP, candle_core::backend::BackendStorage::dtype(x), T => {
            let x = element::slice::<T>(OP, x, x_layout)?;
            Ok(self.forward(x, element::slice::<T>(OP, weight, weight_layout)?, None))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        dispatch!(OP, grad.dtype(), T => self.backward::<T>(x, weight, &self.before_relu::<T>(y, grad)?))
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        dispatch!(OP, candle_core::backend::BackendStorage::dtype(x), T => {
            let x = element::slice::<T>(OP, x, x_layout)?;
            let weight = element::slice::<T>(OP, weight, weight_layout)?;
            Ok(self.forward(x, weight, Some(element::slice::<T>(OP, bias, bias_layout)?)))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        dispatch!(OP, grad.dtype(), T => {
            let dy = self.before_relu::<T>(y, grad)?;
            let (dx, dweight) = self.backward::<T>(x, weight, &dy)?;
            Ok((dx, dweight, self.backward_bias::<T>(bias, &dy)?))
        })
    }
}

#[cfg(test)]
mod tests;
