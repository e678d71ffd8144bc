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
//! One training step of a small network:
//!
//! ```
//! use candle_core::{DType, Device, Tensor, Var};
//! use kestrel_kernels::{
//!     AdamConfig, BatchNormConfig, Conv2dConfig, adam_step, batch_norm_train, conv2d, cross_entropy, max_pool2d, relu,
//! };
//!
//! let images = Tensor::randn(0f32, 1f32, (8, 3, 4, 4), &Device::Cpu)?;
//! let targets = Tensor::new(&[0u32, 1, 2, 3, 0, 1, 2, 3], &Device::Cpu)?;
//! let weight = Var::randn(0f32, 0.1f32, (4, 3, 3, 3), &Device::Cpu)?;
//! let (gamma, beta) = (Var::ones(4, DType::F32, &Device::Cpu)?, Var::zeros(4, DType::F32, &Device::Cpu)?);
//! let (running_mean, running_var) = (beta.zeros_like()?, gamma.ones_like()?.contiguous()?);
//!
//! let x = conv2d(&images, &weight, None, &Conv2dConfig { padding: 1, ..Default::default() })?;
//! let x = batch_norm_train(&x, &gamma, &beta, &running_mean, &running_var, &BatchNormConfig::default())?;
//! let logits = max_pool2d(&relu(&x)?, 4, 4, 0)?.flatten_from(1)?;
//! let loss = cross_entropy(&logits, &targets)?;
//!
//! let grads = loss.backward()?;
//! let (exp_avg, exp_avg_sq) = (weight.zeros_like()?, weight.zeros_like()?);
//! let grad = grads.get(&weight).ok_or_else(|| candle_core::Error::msg("no gradient"))?;
//! adam_step(&weight, grad, &exp_avg, &exp_avg_sq, 1, &AdamConfig { weight_decay: 1e-4, ..Default::default() })?;
//! # kestrel_kernels::Result::Ok(())
//! ```
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
