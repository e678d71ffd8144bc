//! Each op against finite differences, against PyTorch's golden tensors, and against itself on other thread counts.
#![allow(clippy::unwrap_used)]

mod candle_defects;
mod errors;
mod golden;
mod gradients;
mod inputs;
mod net_sizes;
mod plain_loops;
mod threads;
