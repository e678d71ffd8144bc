//! The ops of a convolutional block on channels-last tensors: logical shape `[N, H, W, C]`, contiguous.
//!
//! In this layout a pixel's channels lie side by side, which is what the vector units want: convolutions run by Winograd
//! transforms, and batch norm, relu and pooling work on whole vectors of channels. A net that stays in it from the first
//! convolution to the flattening copies nothing between its ops.
//!
//! `f32` on the CPU runs kernels of this module, and on an NVIDIA GPU, with the `cuda` feature, those of `kestrel_kernels::cuda`.
//! Anything else (other devices, `f64`, shapes that the kernels do not take) goes through the channels-first op of the same name,
//! with the same numbers.

pub(crate) mod avg_pool2d;
pub(crate) mod batch_norm;
mod bias;
mod conv2d;
mod flatten;
mod interleave;
mod max_pool2d;

pub use avg_pool2d::{adaptive_avg_pool2d, avg_pool2d};
pub use batch_norm::{Activation, BatchNorm, batch_norm_relu_eval, batch_norm_relu_train};
pub use conv2d::{conv2d, without_winograd};
pub use max_pool2d::max_pool2d;

use candle_core::Tensor;

use crate::{Error, Result};

/// `[N, C, H, W]` → `[N, H, W, C]`, contiguous; where a net enters this layout.
///
/// # Errors
/// If the tensor has another rank.
pub fn to_channels_last(x: &Tensor) -> candle_core::Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() && x.dtype() == candle_core::DType::F32 && x.rank() == 4 && !x.track_op() {
        return crate::cuda::to_channels_last(x);
    }
    match interleave::interleave(x)? {
        Some(interleaved) => Ok(interleaved),
        None => x.permute((0, 2, 3, 1))?.contiguous(),
    }
}

/// A view of a `[N, H, W, C]` tensor as `[N, C, H, W]`.
fn to_channels_first(op: &'static str, x: &Tensor) -> Result<Tensor> {
    if x.rank() != 4 {
        return Err(Error::ShapeMismatch {
            op,
            expected: "[N, H, W, C]".to_owned(),
            got: x.dims().to_vec(),
        });
    }
    Ok(x.permute((0, 3, 1, 2))?)
}
