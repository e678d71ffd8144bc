//! Average pooling on channels-last tensors, with the numbers of the channels-first
//! [`avg_pool2d`](crate::avg_pool2d()) and [`adaptive_avg_pool2d`](crate::adaptive_avg_pool2d).

pub(crate) mod kernel;

#[cfg(doc)]
use crate::Error;
use crate::Result;
use crate::avg_pool2d::geometry::{Axis, Geometry, Windows};
use crate::element;
use crate::tape::{self, Backward, Gradient, Gradients, Tape, Value, elements, tensor};
use candle_core::Tensor;

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
    tape::section(|tape| {
        let x = tape.leaf(x)?;
        tape.avg_pool2d(&x, kernel, stride, padding, count_include_pad)
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
pub fn adaptive_avg_pool2d(x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    tape::section(|tape| {
        let x = tape.leaf(x)?;
        tape.adaptive_avg_pool2d(&x, size)
    })
}

impl Tape {
    /// The mean of each window, as [`avg_pool2d`].
    ///
    /// # Errors
    /// Those of [`avg_pool2d`], and [`Error::ForeignValue`] for another tape's value.
    pub fn avg_pool2d(
        &mut self,
        x: &Value,
        kernel: usize,
        stride: usize,
        padding: usize,
        count_include_pad: bool,
    ) -> Result<Value> {
        const OP: &str = "avg_pool2d";
        let (batch, height, width, channels) = element::dims4(OP, x.shape_tensor(), "[N, H, W, C]")?;
        let windows = Windows::new(OP, kernel, stride, padding, count_include_pad)?;
        let (rows, columns) = (windows.axis(OP, height)?, windows.axis(OP, width)?);
        self.average(OP, x, Geometry::new(batch, channels, rows, columns), |x| {
            crate::avg_pool2d(x, kernel, stride, padding, count_include_pad)
        })
    }

    /// The means of evenly spread windows, as [`adaptive_avg_pool2d`].
    ///
    /// # Errors
    /// Those of [`adaptive_avg_pool2d`], and [`Error::ForeignValue`] for another tape's value.
    pub fn adaptive_avg_pool2d(&mut self, x: &Value, (out_height, out_width): (usize, usize)) -> Result<Value> {
        const OP: &str = "adaptive_avg_pool2d";
        let (batch, height, width, channels) = element::dims4(OP, x.shape_tensor(), "[N, H, W, C]")?;
        let rows = Axis::adaptive(OP, "out_height", height, out_height)?;
        let columns = Axis::adaptive(OP, "out_width", width, out_width)?;
        self.average(OP, x, Geometry::new(batch, channels, rows, columns), |x| {
            crate::adaptive_avg_pool2d(x, (out_height, out_width))
        })
    }

    /// `f32` on the CPU by the kernel, anything else by the channels-first op.
    fn average(
        &mut self,
        op: &'static str,
        x: &Value,
        geometry: Geometry,
        channels_first: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Value> {
        self.check(x)?;
        #[cfg(feature = "cuda")]
        if let Some(on_gpu) = x.on_gpu() {
            if geometry.is_global() {
                return crate::cuda::mean_of_pixels(self, on_gpu);
            }
            return self.candle(&[x], |x| {
                let y = channels_first(&x[0].permute((0, 3, 1, 2))?)?;
                Ok(y.permute((0, 2, 3, 1))?.contiguous()?)
            });
        }
        element::require_float(op, x.shape_tensor())?;
        let Some((x_node, _)) = x.as_recorded() else {
            let y = channels_first(&x.whole()?.permute((0, 3, 1, 2))?)?;
            return Ok(self.in_graph(y.permute((0, 2, 3, 1))?.contiguous()?));
        };
        let g = &geometry;
        let mut y = vec![0.0; g.batch * g.outputs() * g.channels];
        elements(&x.whole()?, |x| kernel::forward(g, x, &mut y))?;
        let shape = [g.batch, g.rows.outputs(), g.columns.outputs(), g.channels];
        let y = self.plain(self.needs_grad(x_node), tensor(y, &shape)?);
        let len = x.shape_tensor().elem_count();
        self.record(&y, AvgPool2dOp { geometry, x_node, len });
        Ok(y)
    }
}

/// A pooling that has run.
struct AvgPool2dOp {
    geometry: Geometry,
    x_node: usize,
    /// Elements of the input.
    len: usize,
}

impl Backward for AvgPool2dOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let mut dx = vec![0.0; self.len];
        gradient
            .plain()
            .with(|dy| kernel::backward(&self.geometry, dy, &mut dx))?;
        gradients.add(self.x_node, Gradient::owned(dx))
    }
}

#[cfg(test)]
mod tests;
