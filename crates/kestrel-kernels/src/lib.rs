//! Training ops for candle, with forward and backward, whose numbers follow PyTorch's.
//!
//! There are three ways to the same numbers, from the one that fits any program to the fastest:
//!
//! | | takes | for |
//! |---|---|---|
//! | the crate's root | `[N, C, H, W]` with any strides, `f32` and `f64`, any device | a drop-in for candle's op |
//! | [`channels_last`] | `[N, H, W, C]`, contiguous; its kernels are for `f32` on the CPU | one op at a time, fast |
//! | [`tape`] | values of a section, `[N, H, W, C]`: `f32` on the CPU and, with the feature `cuda`, on an NVIDIA GPU | a whole net: ops that know their neighbours |
//!
//! What the kernels of the last two do not take goes through the root's op, and on a device without kernels the root's op is
//! composed of candle's own. All take part in candle's autograd but the steps of [`update`], which move parameters in place.
//! Work is cut into pieces whose sizes depend on the shapes alone, and partial sums are added in a fixed order, so a result is
//! bit-equal for any number of threads.
//!
//! Shape legend: `N` batch, `C` channels, `H`, `W` height and width, `K` output channels, `R`, `S` kernel height and
//! width, `G` groups, `P`, `Q` output height and width.
//!
//! One training step of a small network:
//!
//! ```
//! use candle_core::{DType, Device, Tensor, Var};
//! use kestrel_kernels::channels_last::{Activation, BatchNorm, to_channels_last};
//! use kestrel_kernels::{AdamConfig, BatchNormConfig, Conv2dConfig, adam_step, cross_entropy, tape};
//!
//! let images = to_channels_last(&Tensor::randn(0f32, 1f32, (8, 3, 4, 4), &Device::Cpu)?)?;
//! let targets = Tensor::new(&[0u32, 1, 2, 3, 0, 1, 2, 3], &Device::Cpu)?;
//! let weight = Var::randn(0f32, 0.1f32, (4, 3, 3, 3), &Device::Cpu)?;
//! let (gamma, beta) = (Var::ones(4, DType::F32, &Device::Cpu)?, Var::zeros(4, DType::F32, &Device::Cpu)?);
//! let (running_mean, running_var) = (beta.zeros_like()?, gamma.ones_like()?.contiguous()?);
//! let batch_norm = BatchNorm {
//!     weight: &gamma,
//!     bias: &beta,
//!     running_mean: &running_mean,
//!     running_var: &running_var,
//!     config: BatchNormConfig::default(),
//!     training: true,
//! };
//!
//! let logits = tape::section(|tape| {
//!     let x = tape.leaf(&images)?;
//!     let same = Conv2dConfig { padding: 1, ..Default::default() };
//!     let x = tape.conv2d_batch_norm(&x, &weight, None, &same, &batch_norm, Activation::Relu)?;
//!     let x = tape.max_pool2d(&x, 4, 4, 0)?;
//!     tape.flatten(&x)
//! })?;
//! let loss = cross_entropy(&logits, &targets)?;
//!
//! let grads = tape::backward(&loss)?;
//! let (exp_avg, exp_avg_sq) = (weight.zeros_like()?, weight.zeros_like()?);
//! let grad = grads.get(&weight).ok_or_else(|| candle_core::Error::msg("no gradient"))?;
//! adam_step(&weight, grad, &exp_avg, &exp_avg_sq, 1, &AdamConfig { weight_decay: 1e-4, ..Default::default() })?;
//! # kestrel_kernels::Result::Ok(())
//! ```
//!
//! Beside the ops: an allocator ([`memory`]), keyed random numbers ([`random`]), pixels to floats ([`pixels`]) and what GPUs
//! there are ([`gpus`]).
//!
//! All `unsafe` of the workspace lives in this crate. It reads no files and knows no models.

pub mod autocast;
pub mod avg_pool2d;
pub mod batch_norm;
pub mod channels_last;
pub mod conv2d;
pub mod cross_entropy;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod dropout;
pub mod gelu;
pub mod gpus;
pub mod linear;
pub mod max_pool2d;
pub mod memory;
pub mod pixels;
pub mod random;
pub mod relu;
pub mod simd;
pub mod tape;
pub mod update;

mod element;
mod error;
mod gemm;

pub use autocast::{Precision, autocast};
pub use avg_pool2d::{adaptive_avg_pool2d, avg_pool2d};
pub use batch_norm::{BatchNormConfig, batch_norm_eval, batch_norm_train};
pub use conv2d::{Conv2dConfig, conv2d};
pub use cross_entropy::{CrossEntropyConfig, cross_entropy, cross_entropy_with};
pub use dropout::{DropoutKey, dropout};
pub use error::{Error, Result};
pub use gelu::gelu;
pub use linear::{linear, linear_relu};
pub use max_pool2d::max_pool2d;
pub use relu::relu;
pub use update::{AdamConfig, SgdConfig, adam_step, sgd_step};

/// The example of the README, so that it compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
