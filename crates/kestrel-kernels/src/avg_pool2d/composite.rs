//! Average pooling composed of candle's own ops, for devices without a kernel here.

use super::geometry::{Axis, Geometry};
use candle_core::{Result, Tensor};

/// The same value and gradient as the kernel, but for planes that hold an infinity, whose other windows may become NaN.
///
/// A mean over rectangles is a matrix product from either side.
pub(super) fn avg_pool2d(x: &Tensor, g: &Geometry) -> Result<Tensor> {
    let matrix = |axis: &Axis| {
        let mut data = vec![0f64; axis.outputs() * axis.inputs()];
        for ((row, window), count) in data.chunks_mut(axis.inputs()).zip(&axis.windows).zip(&axis.counts) {
            row[window.clone()].fill(1.0 / *count as f64);
        }
        Tensor::from_vec(data, (axis.outputs(), axis.inputs()), x.device())?.to_dtype(x.dtype())
    };
    let (rows, columns) = (matrix(&g.rows)?, matrix(&g.columns)?);
    let y = rows.broadcast_matmul(&x.contiguous()?)?;
    y.broadcast_matmul(&columns.t()?)
}
