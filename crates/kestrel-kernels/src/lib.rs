//! Training ops for candle, with forward and backward, whose numbers follow PyTorch's.
//!
//! Every op takes candle tensors in logical `[N, C, H, W]` order with any strides, in `f32` or `f64`, and takes part in
//! candle's autograd. On the CPU an op runs a kernel of this crate; on any other device it is composed of candle's own
//! ops. Work is cut into pieces whose sizes depend on the shapes alone, and partial sums are added in a fixed order, so a
//! result is bit-equal for any number of threads.
//!
//! Shape legend: `N` batch, `C` channels, `H`, `W` height and width, `K` output channels, `R`, `S` kernel height and
//! width, `G` groups, `P`, `Q` output height and width.
//!
//! All `unsafe` of the workspace lives in this crate. It reads no files and knows no models.

pub mod batch_norm;
pub mod conv2d;
pub mod cross_entropy;
pub mod dropout;
pub mod max_pool2d;
pub mod random;
pub mod relu;
pub mod update;

mod element;
mod error;
mod gemm;

pub use batch_norm::{BatchNormConfig, batch_norm_eval, batch_norm_train};
pub use conv2d::{Conv2dConfig, conv2d};
pub use cross_entropy::cross_entropy;
pub use dropout::{DropoutKey, dropout};
pub use error::{Error, Result};
pub use max_pool2d::max_pool2d;
pub use relu::relu;
pub use update::{AdamConfig, adam_step};
