//! Integration tests of `kestrel-models`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod cnn_golden;
mod formula;
mod freezing;
mod graph;
mod onnx;
mod pth;
mod resnet_golden;
mod weights;
mod whitened_cnn_golden;
