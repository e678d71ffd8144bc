//! Maximum pooling with PyTorch's gradient. candle's own shares a window's gradient out wrongly, refuses windows that
//! overlap and knows no padding.

mod composite;
pub(crate) mod geometry;
mod window;

#[cfg(doc)]
use crate::Error;
use crate::Result;
use crate::element::{self, Element, dispatch};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor, WithDType};
use geometry::Geometry;
use std::sync::OnceLock;

const OP: &str = "max_pool2d";

/// The maximum of each window.
///
/// ```text
/// y[n, c, p, q] = max over r, s < kernel of x[n, c, p·stride + r − padding, q·stride + s − padding],  outside: −∞
/// P = (H + 2·padding − kernel) / stride + 1, rounded down
/// ```
///
/// The whole gradient of a window goes to its first maximum in row-major order; gradients of overlapping windows add up.
/// A NaN wins over any number, the last NaN of a window over the others.
///
/// # Shapes
/// `x` `[N, C, H, W]`; the result is `[N, C, P, Q]`.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::InvalidArgument`] for a kernel or stride of 0 or padding
/// of more than half the kernel, [`Error::KernelTooLarge`].
///
/// # Source
/// `torch.nn.functional.max_pool2d`; proved by `tests/golden/max_pool2d.safetensors`.
pub fn max_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    element::require_float(OP, x)?;
    let geometry = Geometry::channels_first(OP, x, kernel, stride, padding)?;
    if !x.device().is_cpu() {
        return Ok(composite::max_pool2d(x, &geometry)?);
    }
    let op = MaxPool2d {
        geometry,
        keep_indices: x.track_op(),
        indices: OnceLock::new(),
    };
    Ok(x.contiguous()?.apply_op1(op)?)
}

/// The op that candle's autograd records.
struct MaxPool2d {
    geometry: Geometry,
    keep_indices: bool,
    /// For each window the pixel, within its plane, that the maximum came from; kept by the forward for the backward.
    indices: OnceLock<Vec<u32>>,
}

impl MaxPool2d {
    fn forward<T: Element>(&self, x: &[T]) -> Vec<T> {
        if !self.keep_indices {
            return window::maxima(&self.geometry, x);
        }
        let (y, indices) = window::maxima_and_indices(&self.geometry, x);
        // A second forward of the same op would find the same indices.
        self.indices.get_or_init(|| indices);
        y
    }
}

impl CustomOp1 for MaxPool2d {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let g = &self.geometry;
        dispatch!(OP, candle_core::backend::BackendStorage::dtype(x), T => {
            let y = self.forward(element::slice::<T>(OP, x, layout)?);
            Ok((T::to_cpu_storage_owned(y), Shape::from((g.batch, g.channels, g.out_height, g.out_width))))
        })
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let Some(indices) = self.indices.get() else {
            return Err(candle_core::Error::BackwardNotSupported { op: OP }.bt());
        };
        dispatch!(OP, grad.dtype(), T => {
            let dx = element::with_slice::<T, _>(OP, grad, |dy| window::scatter(&self.geometry, indices, dy))?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), &Device::Cpu)?))
        })
    }
}

#[cfg(test)]
mod tests;
