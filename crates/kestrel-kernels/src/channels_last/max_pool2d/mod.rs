//! Maximum pooling on channels-last tensors, with the numbers of the channels-first [`max_pool2d`](crate::max_pool2d()).

mod kernel;
mod normalized;
mod through;
mod window;

use std::sync::Arc;

use candle_core::Tensor;

#[cfg(doc)]
use crate::Error;
use crate::max_pool2d::geometry::Geometry;
use crate::tape::{self, Backward, Data, Gradient, Gradients, Normalized, Pointwise, Tape, Value, elements, tensor};
use crate::{Result, element};
pub(crate) use through::scatter_through;

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
    tape::section(|tape| {
        let x = tape.leaf(x)?;
        tape.max_pool2d(&x, kernel, stride, padding)
    })
}

impl Tape {
    /// The maximum of each window, as [`max_pool2d`].
    ///
    /// # Errors
    /// Those of [`max_pool2d`], and [`Error::ForeignValue`] for another tape's value.
    pub fn max_pool2d(&mut self, x: &Value, kernel: usize, stride: usize, padding: usize) -> Result<Value> {
        self.check(x)?;
        #[cfg(feature = "cuda")]
        if let Some(on_gpu) = x.on_gpu() {
            let geometry = Geometry::channels_last(OP, on_gpu.1, kernel, stride, padding)?;
            if geometry.taps_fit_a_byte() {
                return crate::cuda::max_pool2d(self, on_gpu, geometry);
            }
            // Of any type that a value on a GPU has: it comes there as `f32`.
            return self.max_pool2d_of_candle(x, kernel, stride, padding);
        }
        element::require_float(OP, x.shape_tensor())?;
        let geometry = Geometry::channels_last(OP, x.shape_tensor(), kernel, stride, padding)?;
        let recorded = x.as_recorded().filter(|_| geometry.taps_fit_a_byte());
        let Some((node, data)) = recorded else {
            return self.max_pool2d_of_candle(x, kernel, stride, padding);
        };
        let normalized = match data {
            Data::Normalized(normalized) if normalized.activation == Pointwise::Relu && geometry.halves() => {
                Some(Arc::clone(normalized))
            }
            _ => None,
        };
        let needs_grad = self.needs_grad(node);
        let (y, choices) = match &normalized {
            Some(normalized) => {
                let y = elements(&normalized.x, |x| normalized::maxima(&geometry, normalized, x))?;
                (y, Vec::new())
            }
            None => elements(&x.whole()?, |x| kernel::maxima(&geometry, x, needs_grad))?,
        };
        let shape = [
            geometry.batch,
            geometry.out_height,
            geometry.out_width,
            geometry.channels,
        ];
        let y = self.plain(needs_grad, tensor(y, &shape)?);
        let op = MaxPool2dOp {
            geometry,
            choices,
            x_node: node,
            normalized,
        };
        self.record(&y, op);
        Ok(y)
    }

    /// The same by the channels-first op of candle's graph.
    fn max_pool2d_of_candle(&mut self, x: &Value, kernel: usize, stride: usize, padding: usize) -> Result<Value> {
        self.candle(&[x], |x| {
            let y = crate::max_pool2d(&x[0].permute((0, 3, 1, 2))?, kernel, stride, padding)?;
            Ok(y.permute((0, 2, 3, 1))?.contiguous()?)
        })
    }
}

/// A pooling that has run.
struct MaxPool2dOp {
    geometry: Geometry,
    /// For each output the tap that the maximum came from, unless it is found again.
    choices: Vec<u8>,
    x_node: usize,
    /// What the input was normalised from, on load.
    normalized: Option<Arc<Normalized>>,
}

impl Backward for MaxPool2dOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let gradient = gradient.plain();
        let Self { geometry, choices, .. } = self;
        let dx = match &self.normalized {
            Some(normalized) => Gradient::Gated(
                gradient.with(|dy| elements(&normalized.x, |x| normalized::scatter(geometry, normalized, x, dy)))??,
            ),
            None => Gradient::owned(gradient.with(|dy| kernel::scatter(geometry, choices, dy))?),
        };
        gradients.add(self.x_node, dx)
    }
}

#[cfg(test)]
mod tests;
