//! Integration tests of kestrel-data: no network but loopback, no file from outside the repository.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cifar10;
mod decode;
#[cfg(feature = "download")]
mod download;
mod golden;
mod golden_transforms;
mod image_folder;
mod loader;
mod samplers_and_splits;
mod sources;
mod transforms;
