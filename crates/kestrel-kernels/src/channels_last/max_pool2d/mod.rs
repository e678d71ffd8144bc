//! Maximum pooling on channels-last tensors, with the numbers of the channels-first [`max_pool2d`](crate::max_pool2d()).

mod kernel;
mod window;

#[cfg(doc)]
use crate::Error;
use crate::Result;
use crate::element;
use crate::max_pool2d::geometry::Geometry;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor, WithDType};
use std::sync::OnceLock;

const OP: &str = "max_pool2d";

/// The maximum of each window.
///
/// ```text
/// y[n, p, q, c] = max over r, s < kernel of x[n, p·stride + r − padding, q·stride + s − padding, c],  outside: −∞
/// P = (H + 2·padding − kernel) / stride + 1, rounded down
/// ```
///
/// The whole gradient of a window goes to its first maximum in row-major order; gradients of overlapping windows add up.
/// A NaN wins over any number, the last NaN of a window over the others.
///
/// # Shapes
/// `x` `[N, H, W, C]`; the result is `[N, P, Q, C]`.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::InvalidArgument`] for a kernel or stride of 0 or padding
/// of more than half the kernel, [`Error::KernelTooLarge`].
///
/// # Source
/// `torch.nn.functional.max_pool2d` in the `channels_last` memory format; equal to the bit to the channels-first op, which
/// `tests/golden/max_pool2d.safetensors` proves.
pub fn max_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    element::require_float(OP, x)?;
    let geometry = Geometry::channels_last(OP, x, kernel, stride, padding)?;
    if !x.device().is_cpu() || x.dtype() != DType::F32 || !geometry.taps_fit_a_byte() {
        let y = crate::max_pool2d(&x.permute((0, 3, 1, 2))?, kernel, stride, padding)?;
        return Ok(y.permute((0, 2, 3, 1))?.contiguous()?);
    }
    let op = MaxPool2d {
        geometry,
        keep_choices: x.track_op(),
        choices: OnceLock::new(),
    };
    Ok(x.contiguous()?.apply_op1(op)?)
}

/// The op that candle's autograd records.
struct MaxPool2d {
    geometry: Geometry,
    keep_choices: bool,
    /// For each output the tap that the maximum came from, kept by the forward for the backward: a byte is read faster
    /// than the window is compared again.
    choices: OnceLock<Vec<u8>>,
}

impl CustomOp1 for MaxPool2d {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let g = &self.geometry;
        let (y, choices) = kernel::maxima(g, element::slice::<f32>(OP, x, layout)?, self.keep_choices);
        if self.keep_choices {
            // A second forward of the same op would choose the same.
            self.choices.get_or_init(|| choices);
        }
        let shape = Shape::from((g.batch, g.out_height, g.out_width, g.channels));
        Ok((f32::to_cpu_storage_owned(y), shape))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let Some(choices) = self.choices.get() else {
            return Err(candle_core::Error::BackwardNotSupported { op: OP }.bt());
        };
        let dx = element::with_slice::<f32, _>(OP, grad, |dy| kernel::scatter(&self.geometry, choices, dy))?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), &Device::Cpu)?))
    }
}

#[cfg(test)]
mod tests;
