//! Training ops for candle, with forward and backward.

pub mod conv2d;
pub mod random;
pub mod simd;
