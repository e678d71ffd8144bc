//! Convolution composed of candle's own ops, for devices without a kernel here.

use super::geometry::Geometry;
use candle_core::{Result, Tensor};

/// The same value and gradients as the kernel.
///
/// candle's backward deduces the input's size from the height alone and has no room for padding that the windows do not
/// reach. So the input is padded here and cut to the pixels that some window covers.
pub(crate) fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, g: &Geometry) -> Result<Tensor> {
    let covered = |out: usize, kernel: usize| (out - 1) * g.stride + g.dilation * (kernel - 1) + 1;
    let x = x
        .pad_with_zeros(2, g.padding, g.padding)?
        .pad_with_zeros(3, g.padding, g.padding)?
        .narrow(2, 0, covered(g.out_height, g.kernel_height))?
        .narrow(3, 0, covered(g.out_width, g.kernel_width))?
        .contiguous()?;
    let y = x.conv2d(&weight.contiguous()?, 0, g.stride, g.dilation, g.groups)?;
    match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, g.out_channels, 1, 1))?),
        None => Ok(y),
    }
}
