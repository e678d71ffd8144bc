//! The ops of a convolutional block on channels-last tensors: logical shape `[N, H, W, C]`, contiguous.
//!
//! In this layout a pixel's channels lie side by side, which is what the vector units want: convolutions run by Winograd
//! transforms, and batch norm, relu and pooling work on whole vectors of channels. A net that stays in it from the first
//! convolution to the flattening copies nothing between its ops.
//!
//! `f32` on the CPU runs kernels of this module; anything else (other devices, `f64`, shapes that the kernels do not take)
//! goes through the channels-first op of the same name, with the same numbers.

mod batch_norm_relu;

pub use batch_norm_relu::{batch_norm_relu_eval, batch_norm_relu_train};
