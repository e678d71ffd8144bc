//! Fully connected layer. candle's own is as fast forward, but its backward sums transposed gradients element by element.

use crate::element::{self, Element, dispatch};
use crate::gemm::{MatMut, MatRef, gemm};
use crate::{Error, Result};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Device, Layout, Shape, Tensor};
use rayon::prelude::*;

const OP: &str = "linear";

/// Columns of a product that are one piece of work.
const COLUMNS: usize = 64;

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
/// `torch.nn.functional.linear`.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    element::require_float(OP, x)?;
    element::require_same_dtype("linear weight", weight, x)?;
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
        element::require_same_dtype("linear bias", bias, x)?;
        element::require_shape("linear bias", bias, &[outputs])?;
    }
    if !x.device().is_cpu() {
        return Ok(composite(x, weight, bias)?);
    }
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let op = Linear { rows, inputs, outputs };
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

/// The op that candle's autograd records; arguments are contiguous, `inputs` and `outputs` at least 1.
struct Linear {
    rows: usize,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    fn forward<T: Element>(&self, x: &[T], weight: &[T], bias: Option<&[T]>) -> (CpuStorage, Shape) {
        let mut y = vec![T::ZERO; self.rows * self.outputs];
        if let Some(bias) = bias {
            y.chunks_exact_mut(self.outputs).for_each(|y| y.copy_from_slice(bias));
        }
        if self.rows > 0 {
            let x = MatRef::row_major(x, self.rows, self.inputs, self.inputs);
            let weight = MatRef::row_major(weight, self.outputs, self.inputs, self.inputs).transpose();
            product(&mut y, (self.rows, self.outputs), bias.is_some(), x, weight);
        }
        (T::to_cpu_storage_owned(y), Shape::from((self.rows, self.outputs)))
    }

    /// `dx = dy · weight`, `dweight = dyᵀ · x`, each only if something needs it.
    fn backward<T: Element>(
        &self,
        x: &Tensor,
        weight: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let Self { rows, inputs, outputs } = *self;
        let dx = self.gradient::<T>(x, (rows, inputs), grad, weight, |dy, weight| {
            (
                MatRef::row_major(dy, rows, outputs, outputs),
                MatRef::row_major(weight, outputs, inputs, inputs),
            )
        })?;
        let dweight = self.gradient::<T>(weight, (outputs, inputs), grad, x, |dy, x| {
            (
                MatRef::row_major(dy, rows, outputs, outputs).transpose(),
                MatRef::row_major(x, rows, inputs, inputs),
            )
        })?;
        Ok((dx, dweight))
    }

    /// The gradient of `of`: the product of two matrices made from `grad` and the other argument.
    fn gradient<T: Element>(
        &self,
        of: &Tensor,
        shape: (usize, usize),
        grad: &Tensor,
        other: &Tensor,
        factors: impl for<'a> Fn(&'a [T], &'a [T]) -> (MatRef<'a, T>, MatRef<'a, T>),
    ) -> candle_core::Result<Option<Tensor>> {
        if !of.track_op() {
            return Ok(None);
        }
        let mut out = vec![T::ZERO; shape.0 * shape.1];
        if self.rows > 0 {
            element::with_slice::<T, _>(OP, grad, |dy| {
                element::with_slice::<T, _>(OP, other, |other| {
                    let (a, b) = factors(dy, other);
                    product(&mut out, shape, false, a, b);
                })
            })??;
        }
        Ok(Some(Tensor::from_vec(out, shape, &Device::Cpu)?))
    }

    fn backward_bias<T: Element>(&self, bias: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        if !bias.track_op() {
            return Ok(None);
        }
        let mut sums = vec![0.0; self.outputs];
        element::with_slice::<T, _>(OP, grad, |dy| {
            for dy in dy.chunks_exact(self.outputs) {
                sums.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy.widen());
            }
        })?;
        let sums: Vec<T> = sums.into_iter().map(T::narrow).collect();
        Ok(Some(Tensor::from_vec(sums, self.outputs, &Device::Cpu)?))
    }
}

/// `out = a b` or `out += a b`, shared out by columns.
fn product<T: Element>(out: &mut [T], shape: (usize, usize), accumulate: bool, a: MatRef<'_, T>, b: MatRef<'_, T>) {
    let out = MatMut::row_major(out, shape.0, shape.1, shape.1);
    let blocks: Vec<_> = out.column_blocks(COLUMNS).collect();
    blocks.into_par_iter().for_each(|(start, mut block)| {
        let columns = start..(start + COLUMNS).min(shape.1);
        gemm(&mut block, accumulate, a, b.columns(columns));
    });
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
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        dispatch!(OP, grad.dtype(), T => self.backward::<T>(x, weight, grad))
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
        _y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        dispatch!(OP, grad.dtype(), T => {
            let (dx, dweight) = self.backward::<T>(x, weight, grad)?;
            Ok((dx, dweight, self.backward_bias::<T>(bias, grad)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    #[test]
    fn composite_agrees_with_the_kernel() -> candle_core::Result<()> {
        // More than one block of columns in every product.
        let x = Var::randn(0f64, 1f64, (5, 131), &Device::Cpu)?;
        let weight = Var::randn(0f64, 1f64, (67, 131), &Device::Cpu)?;
        let bias = Var::randn(0f64, 1f64, 67, &Device::Cpu)?;
        let outputs = [linear(&x, &weight, Some(&bias))?, composite(&x, &weight, Some(&bias))?];
        let weights = outputs[0].randn_like(0.0, 1.0)?;
        let mut results = Vec::new();
        for y in outputs {
            let grads = (&y * &weights)?.backward()?;
            let mut tensors = vec![y];
            for var in [&x, &weight, &bias] {
                let Some(grad) = grads.get(var) else {
                    panic!("no gradient")
                };
                tensors.push(grad.clone());
            }
            results.push(tensors);
        }
        for (fast, slow) in results[0].iter().zip(&results[1]) {
            assert_eq!(fast.dims(), slow.dims());
            assert!((fast - slow)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-11);
            assert!(slow.abs()?.max_all()?.to_scalar::<f64>()? > 0.1);
        }
        Ok(())
    }
}
