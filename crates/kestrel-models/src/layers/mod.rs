//! Layers: parameters under PyTorch's names, run by the ops of `kestrel_kernels`.
//!
//! Layers run on the [`Tape`] of a section. Image layers take and give channels-last values
//! `[N, H, W, C]`, the layout that the kernels are fast in; a net enters it by [`to_channels_last`] and leaves it by
//! [`Tape::flatten`]. Parameters keep PyTorch's shapes.

mod batch_norm;
mod conv2d;
mod dropout;
mod linear;

pub use batch_norm::BatchNorm2d;
pub use conv2d::Conv2d;
pub use dropout::Dropout;
pub use linear::Linear;

pub use kestrel_kernels::Conv2dConfig;
pub use kestrel_kernels::channels_last::{Activation, to_channels_last};
pub use kestrel_kernels::tape::{Tape, Value};
