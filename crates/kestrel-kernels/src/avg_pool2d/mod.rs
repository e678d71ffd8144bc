//! Average pooling, over windows of one size or over windows that share the image out among a given number of outputs.

mod composite;
pub(crate) mod geometry;
mod plane;

#[cfg(doc)]
use crate::Error;
use crate::Result;
use crate::element::{self, dispatch};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor, WithDType};
use geometry::{Axis, Geometry, Windows};

/// The mean of each window.
///
/// ```text
/// y[n, c, p, q] = Σ over r, s < kernel of x[n, c, p·stride + r − padding, q·stride + s − padding] / D,  outside: 0
/// P = (H + 2·padding − kernel) / stride + 1, rounded down
/// D = kernel² if count_include_pad, else the number of the window's pixels inside the image
/// ```
///
/// # Shapes
/// `x` `[N, C, H, W]`; the result is `[N, C, P, Q]`.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::InvalidArgument`] for a kernel or stride of 0 or padding
/// of more than half the kernel, [`Error::KernelTooLarge`].
///
/// # Source
/// `torch.nn.functional.avg_pool2d`; proved by `tests/golden/avg_pool2d.safetensors`.
pub fn avg_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize, count_include_pad: bool) -> Result<Tensor> {
    const OP: &str = "avg_pool2d";
    let (batch, channels, height, width) = element::dims4(OP, x, "[N, C, H, W]")?;
    let windows = Windows::new(OP, kernel, stride, padding, count_include_pad)?;
    let (rows, columns) = (windows.axis(OP, height)?, windows.axis(OP, width)?);
    pool(OP, x, Geometry::new(batch, channels, rows, columns))
}

/// The means of `out_height` times `out_width` windows that cover the image evenly.
///
/// ```text
/// y[n, c, p, q] = mean of x[n, c, ⌊p·H / out_height⌋ .. ⌈(p + 1)·H / out_height⌉, ⌊q·W / out_width⌋ .. ⌈(q + 1)·W / out_width⌉]
/// ```
///
/// Windows overlap by a pixel where the sizes do not divide each other, and repeat pixels where the output is the larger.
///
/// # Shapes
/// `x` `[N, C, H, W]`; the result is `[N, C, out_height, out_width]`.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::InvalidArgument`] for an output size of 0.
///
/// # Source
/// `torch.nn.functional.adaptive_avg_pool2d`; proved by `tests/golden/avg_pool2d.safetensors`.
pub fn adaptive_avg_pool2d(x: &Tensor, (out_height, out_width): (usize, usize)) -> Result<Tensor> {
    const OP: &str = "adaptive_avg_pool2d";
    let (batch, channels, height, width) = element::dims4(OP, x, "[N, C, H, W]")?;
    let rows = Axis::adaptive(OP, "out_height", height, out_height)?;
    let columns = Axis::adaptive(OP, "out_width", width, out_width)?;
    pool(OP, x, Geometry::new(batch, channels, rows, columns))
}

fn pool(op: &'static str, x: &Tensor, geometry: Geometry) -> Result<Tensor> {
    element::require_float(op, x)?;
    if !x.device().is_cpu() {
        return Ok(composite::avg_pool2d(x, &geometry)?);
    }
    Ok(x.contiguous()?.apply_op1(AvgPool2d { op, geometry })?)
}

/// The op that candle's autograd records.
struct AvgPool2d {
    op: &'static str,
    geometry: Geometry,
}

impl CustomOp1 for AvgPool2d {
    fn name(&self) -> &'static str {
        self.op
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let g = &self.geometry;
        dispatch!(self.op, candle_core::backend::BackendStorage::dtype(x), T => {
            let y = plane::means(g, element::slice::<T>(self.op, x, layout)?);
            Ok((T::to_cpu_storage_owned(y), Shape::from((g.batch, g.channels, g.rows.outputs(), g.columns.outputs()))))
        })
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        dispatch!(self.op, grad.dtype(), T => {
            let dx = element::with_slice::<T, _>(self.op, grad, |dy| plane::spread(&self.geometry, dy))?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), &Device::Cpu)?))
        })
    }
}

#[cfg(test)]
mod tests;
