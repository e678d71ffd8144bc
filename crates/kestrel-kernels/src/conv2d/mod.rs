//! Two-dimensional convolution.

pub mod winograd;
