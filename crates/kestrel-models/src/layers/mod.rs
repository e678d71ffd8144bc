//! Layers: parameters under PyTorch's names, run by the ops of `kestrel_kernels`.

mod batch_norm;
mod conv2d;
mod dropout;
mod linear;

pub use batch_norm::BatchNorm2d;
pub use conv2d::Conv2d;
pub use dropout::Dropout;
pub use linear::Linear;
