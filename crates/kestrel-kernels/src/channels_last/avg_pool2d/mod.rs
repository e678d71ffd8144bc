//! Average pooling on channels-last tensors, with the numbers of the channels-first
//! [`avg_pool2d`](crate::avg_pool2d()) and [`adaptive_avg_pool2d`](crate::adaptive_avg_pool2d).

pub(crate) mod kernel;

#[cfg(doc)]
use crate::Error;
use crate::Result;
use crate::avg_pool2d::geometry::{Axis, Geometry, Windows};
use crate::element;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor, WithDType};

/// The mean of each window.
///
/// ```text
/// y[n, p, q, c] = Σ over r, s < kernel of x[n, p·stride + r − padding, q·stride + s − padding, c] / D,  outside: 0
/// P = (H + 2·padding − kernel) / stride + 1, rounded down
/// D = kernel² if count_include_pad, else the number of the window's pixels inside the image
/// ```
///
/// # Shapes
/// `x` `[N, H, W, C]`; the result is `[N, P, Q, C]`.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::InvalidArgument`] for a kernel or stride of 0 or padding
/// of more than half the kernel, [`Error::KernelTooLarge`].
///
/// # Source
/// `torch.nn.functional.avg_pool2d` in the `channels_last` memory format; proved by
/// `tests/golden/avg_pool2d.safetensors`.
pub fn avg_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize, count_include_pad: bool) -> Result<Tensor> {
    const OP: &str = "avg_pool2d";
    let (batch, height, width, channels) = element::dims4(OP, x, "[N, H, W, C]")?;
    let windows = Windows::new(OP, kernel, stride, padding, count_include_pad)?;
    let (rows, columns) = (windows.axis(OP, height)?, windows.axis(OP, width)?);
    pool(OP, x, Geometry::new(batch, channels, rows, columns), |x| {
        crate::avg_pool2d(x, kernel, stride, padding, count_include_pad)
    })
}

/// The means of `out_height` times `out_width` windows that cover the image evenly.
///
/// ```text
/// y[n, p, q, c] = mean of x[n, ⌊p·H / out_height⌋ .. ⌈(p + 1)·H / out_height⌉, ⌊q·W / out_width⌋ .. ⌈(q + 1)·W / out_width⌉, c]
/// ```
///
/// # Shapes
/// `x` `[N, H, W, C]`; the result is `[N, out_height, out_width, C]`.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::InvalidArgument`] for an output size of 0.
///
/// # Source
/// `torch.nn.functional.adaptive_avg_pool2d` in the `channels_last` memory format; proved by
/// `tests/golden/avg_pool2d.safetensors`.
pub fn adaptive_avg_pool2d(x: &Tensor, (out_height, out_width): (usize, usize)) -> Result<Tensor> {
    const OP: &str = "adaptive_avg_pool2d";
    let (batch, height, width, channels) = element::dims4(OP, x, "[N, H, W, C]")?;
    let rows = Axis::adaptive(OP, "out_height", height, out_height)?;
    let columns = Axis::adaptive(OP, "out_width", width, out_width)?;
    pool(OP, x, Geometry::new(batch, channels, rows, columns), |x| {
        crate::adaptive_avg_pool2d(x, (out_height, out_width))
    })
}

/// `f32` on the CPU by the kernel, anything else by the channels-first op.
fn pool(
    op: &'static str,
    x: &Tensor,
    geometry: Geometry,
    channels_first: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    element::require_float(op, x)?;
    if !x.device().is_cpu() || x.dtype() != DType::F32 {
        let y = channels_first(&x.permute((0, 3, 1, 2))?)?;
        return Ok(y.permute((0, 2, 3, 1))?.contiguous()?);
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
        let mut y = vec![0.0; g.batch * g.outputs() * g.channels];
        kernel::forward(g, element::slice::<f32>(self.op, x, layout)?, &mut y);
        let shape = Shape::from((g.batch, g.rows.outputs(), g.columns.outputs(), g.channels));
        Ok((f32::to_cpu_storage_owned(y), shape))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let mut dx = vec![0.0; x.elem_count()];
        element::with_slice::<f32, _>(self.op, grad, |dy| kernel::backward(&self.geometry, dy, &mut dx))?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), &Device::Cpu)?))
    }
}

#[cfg(test)]
mod tests;
