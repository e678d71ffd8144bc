//! Integration tests of `kestrel-models`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod cnn_golden;
#[cfg(feature = "cuda")]
mod cuda;
mod feature_map;
mod formula;
mod freezing;
mod graph;
#[path = "../../../kestrel-kernels/tests/it/manifest_dir.rs"]
mod manifest_dir;
mod onnx;
mod pth;
mod resnet_golden;
mod weights;
mod whitened_cnn_golden;
