//! Rectified linear unit. candle's own lets the gradient through at 0 and turns NaN into 0; PyTorch does neither.

use crate::Result;
use crate::element::{self, Element, dispatch};
use crate::tape::{Backward, Gradient, Gradients, Tape, Value, elements, tensor};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor};
use rayon::prelude::*;

/// Elements of a piece of work.
const BLOCK: usize = 1 << 14;

/// `y = max(x, 0)`, with gradient 0 where `x ≤ 0`; NaN stays NaN.
///
/// # Shapes
/// Any.
///
/// # Errors
/// [`Error::DTypeMismatch`](crate::Error::DTypeMismatch).
///
/// # Source
/// `torch.nn.functional.relu`.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    element::require_float("relu", x)?;
    if !x.device().is_cpu() {
        return Ok(composite(x)?);
    }
    Ok(x.contiguous()?.apply_op1(Relu)?)
}

/// The same value and gradient from candle's own ops.
fn composite(x: &Tensor) -> candle_core::Result<Tensor> {
    let zeros = x.zeros_like()?;
    x.le(&zeros)?.where_cond(&zeros, x)
}

struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        dispatch!("relu", candle_core::backend::BackendStorage::dtype(x), T => {
            let y = gate(element::slice::<T>("relu", x, layout)?, element::slice::<T>("relu", x, layout)?);
            Ok((<T as candle_core::WithDType>::to_cpu_storage_owned(y), layout.shape().clone()))
        })
    }

    fn bwd(&self, _x: &Tensor, y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        dispatch!("relu", grad.dtype(), T => {
            let dx = element::with_slice::<T, _>("relu", y, |y| {
                element::with_slice::<T, _>("relu", grad, |dy| gate(y, dy))
            })??;
            Ok(Some(Tensor::from_vec(dx, y.shape(), &Device::Cpu)?))
        })
    }
}

impl Tape {
    /// `max(x, 0)` of each element, as [`relu`].
    ///
    /// After a batch norm [`Activation::Relu`](crate::channels_last::Activation::Relu), and after a linear layer its own relu,
    /// saves passes over memory.
    ///
    /// # Errors
    /// Those of [`relu`], and [`Error::ForeignValue`](crate::Error::ForeignValue) for another tape's value.
    pub fn relu(&mut self, x: &Value) -> Result<Value> {
        self.check(x)?;
        #[cfg(feature = "cuda")]
        if let Some(on_gpu) = x.on_gpu() {
            return crate::cuda::pointwise(self, on_gpu, crate::cuda::Function::Relu);
        }
        let Some((x_node, _)) = x.as_recorded() else {
            return Ok(self.in_graph(relu(&x.whole()?)?));
        };
        let x = x.whole()?;
        let output = tensor(elements(&x, |x| gate(x, x))?, x.dims())?;
        let y = self.plain(self.needs_grad(x_node), output.clone());
        if let Some((node, _)) = y.as_recorded() {
            self.keep(node);
        }
        self.record(&y, ReluOp { output, x_node });
        Ok(y)
    }
}

/// A relu that has run in a section.
struct ReluOp {
    output: Tensor,
    x_node: usize,
}

impl Backward for ReluOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let dy = gradient.plain();
        let dx = dy.with(|dy| elements(&self.output, |y| gate(y, dy)))??;
        gradients.add(self.x_node, Gradient::owned(dx))
    }
}

/// `value`, or 0 where `gate ≤ 0`.
pub(crate) fn gate<T: Element>(gate: &[T], value: &[T]) -> Vec<T> {
    let mut out = vec![T::ZERO; value.len()];
    gate_into(gate, value, &mut out);
    out
}

/// Writes `value`, or 0 where `gate ≤ 0`.
pub(crate) fn gate_into<T: Element>(gate: &[T], value: &[T], out: &mut [T]) {
    assert_eq!([gate.len(), value.len()], [out.len(); 2], "a gate for each value");
    out.par_chunks_mut(BLOCK)
        .zip(gate.par_chunks(BLOCK))
        .zip(value.par_chunks(BLOCK))
        .for_each(|((out, gate), value)| {
            for ((out, gate), value) in out.iter_mut().zip(gate).zip(value) {
                // A factor instead of a choice would turn an infinite value into NaN.
                let (closed, value) = (*gate <= T::ZERO, *value);
                *out = std::hint::select_unpredictable(closed, T::ZERO, value);
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    const INPUT: [f32; 6] = [-1.0, -0.0, 0.0, 1e-30, 2.0, f32::NAN];

    #[test]
    fn follows_pytorch_at_zero_and_nan() -> candle_core::Result<()> {
        for op in [relu as fn(&Tensor) -> Result<Tensor>, |x| Ok(composite(x)?)] {
            let x = Var::new(&INPUT, &Device::Cpu)?;
            let y = op(&x)?;
            let values = y.to_vec1::<f32>()?;
            assert_eq!(values[..5], [0.0, 0.0, 0.0, 1e-30, 2.0]);
            assert!(values[5].is_nan());
            let grads = y.backward()?;
            let Some(dx) = grads.get(&x) else { panic!("no gradient") };
            assert_eq!(dx.to_vec1::<f32>()?, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
        }
        Ok(())
    }

    /// Fails when candle mends its `relu`, which this module then need not replace.
    #[test]
    fn candle_still_lets_the_gradient_through_at_zero() -> candle_core::Result<()> {
        let x = Var::new(&INPUT, &Device::Cpu)?;
        let y = x.relu()?;
        let grads = y.backward()?;
        let Some(dx) = grads.get(&x) else { panic!("no gradient") };
        assert_eq!(dx.to_vec1::<f32>()?[..5], [0.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(y.to_vec1::<f32>()?[5], 0.0);
        Ok(())
    }
}
