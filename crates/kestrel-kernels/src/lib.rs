//! Training ops for candle, with forward and backward.

pub mod random;
