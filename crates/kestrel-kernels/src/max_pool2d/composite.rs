//! Maximum pooling composed of candle's own ops, for devices without a kernel here.

use super::geometry::Geometry;
use candle_core::{Result, Tensor};

/// The same value and gradient as the kernel, but for windows that hold nothing but −∞, whose gradient may be lost to the
/// padding.
///
/// The window's taps are compared one after the other in row-major order; a later one takes over only if it is larger
/// or NaN, and the gradient follows the choice.
pub(super) fn max_pool2d(x: &Tensor, g: &Geometry) -> Result<Tensor> {
    let x = pad(&pad(x, 2, g.padding)?, 3, g.padding)?;
    let mut max: Option<Tensor> = None;
    for r in 0..g.kernel {
        let rows = taps(&x, 2, r, g.out_height, g.stride)?;
        for s in 0..g.kernel {
            let tap = taps(&rows, 3, s, g.out_width, g.stride)?;
            max = Some(match max {
                None => tap,
                Some(max) => {
                    let larger = (tap.gt(&max)? + tap.ne(&tap)?)?;
                    larger.where_cond(&tap, &max)?
                }
            });
        }
    }
    match max {
        Some(max) => Ok(max),
        None => candle_core::bail!("max_pool2d: empty kernel"),
    }
}

/// `x` with `padding` entries of −∞ on both sides of an axis.
fn pad(x: &Tensor, dim: usize, padding: usize) -> Result<Tensor> {
    if padding == 0 {
        return Ok(x.clone());
    }
    let mut dims = x.dims().to_vec();
    dims[dim] = padding;
    let edge = Tensor::full(f32::NEG_INFINITY, dims, x.device())?.to_dtype(x.dtype())?;
    Tensor::cat(&[&edge, x, &edge], dim)
}

/// The entries `tap, tap + stride, ...` of an axis.
fn taps(x: &Tensor, dim: usize, tap: usize, count: usize, stride: usize) -> Result<Tensor> {
    let indices: Vec<u32> = (0..count).map(|i| (i * stride + tap) as u32).collect();
    x.contiguous()?
        .index_select(&Tensor::from_vec(indices, count, x.device())?, dim)
}
