//! CUDA: the ops of a section on an NVIDIA GPU, forward and backward.
//!
//! On a GPU a section's values are channels-last tensors in the element type of the [autocast](crate::autocast::autocast) they
//! were made under: `f32`, or `bf16` and `f16` over parameters that stay `f32`. Convolutions are cuDNN's, in its channels-last
//! layout; matrix products are cuBLAS's; all else that a training step does is a kernel of `kernels/*.cu`, each one walk over
//! memory: batch norm with what follows it, pooling, cross-entropy, dropout, and an optimiser's step over all parameters. Without
//! the `cudnn` feature convolutions are composed of candle's ops: right, and slow.
//!
//! The kernels are compiled to PTX when the crate is built, by the same `nvcc` that candle's kernels need: a process then starts
//! without a compiler and its headers at hand, and the driver keeps what it made of the PTX for the next start.
//!
//! Everything runs on the device's one stream. Sums are added in a fixed order and cuDNN's algorithms are chosen among the
//! deterministic ones, so a run repeats to the bit on the same GPU with the same libraries.
//!
//! Proved by `tests/cuda`, which runs where there is a device.

mod batch_norm;
mod context;
mod conv2d;
#[cfg(feature = "cudnn")]
mod cudnn;
mod dropout;
mod graph;
mod launch;
mod linear;
mod loss;
mod pool;
mod resident;
mod rows;
mod tensors;
mod update;

pub(crate) use context::Context;
pub use context::{allow_tf32, device};
pub(crate) use dropout::dropout;
pub use graph::{Graph, copy_all};
use launch::{Arg, Grid};
pub(crate) use linear::linear;
pub(crate) use loss::CrossEntropy;
pub(crate) use pool::{max_pool2d, mean_of_pixels};
pub(crate) use resident::resident_batch;
pub(crate) use rows::{Function, add, convert, flatten, pointwise, to_channels_last};
pub(crate) use tensors::take;
use tensors::{allocate, pointer, storage_pointer};
pub(crate) use update::{AdamConstants, Moved, SgdConstants, adam, sgd, squared_norms};

pub(crate) use batch_norm::normalize;
pub(crate) use conv2d::{conv2d, convolve};
