//! Integration tests of kestrel-data: no network but loopback, no file from outside the repository.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_samples;
mod cifar10;
mod cifar100;
mod decode;
#[cfg(feature = "download")]
mod download;
mod formats;
mod fuzz_corpus;
mod golden;
mod golden_transforms;
mod image_files;
mod image_folder;
mod in_memory;
mod inspect;
mod layouts;
mod loader;
#[path = "../../../kestrel-kernels/tests/it/manifest_dir.rs"]
mod manifest_dir;
mod resident;
mod samplers_and_splits;
#[cfg(feature = "download")]
mod server;
mod skipped;
mod sources;
mod transforms;
mod undecoded;
