//! Image-classification data for candle: data sets, decoding, transforms, samplers and a parallel loader.
//!
//! An image's way is bytes ([`datasets`]) → 8-bit pixels ([`decode`], [`pixels`]) → [`transforms`] → [`loader`] → batch
//! tensors. Pixels stay 8-bit and are borrowed until one last pass writes them into the batch. Randomness is a function of
//! (seed, epoch, sample index), so a batch is the same for any number of threads and from any position in the epoch.
//!
//! What is not here: models and the training loop. The crate never prints; it reports by [`tracing`] and by callbacks.
//!
//! ```
//! use kestrel_data::{datasets, loader::{DataLoader, LoaderConfig}, transforms::presets};
//!
//! let splits = datasets::sample::load()?;
//! let config = LoaderConfig { batch_size: 128, shuffle: true, seed: 0, ..LoaderConfig::default() };
//! let loader = DataLoader::new(splits.train, presets::cifar_train(32)?, config)?;
//! for batch in loader.epoch(0).take(2) {
//!     let batch = batch?;
//!     assert_eq!(batch.images.dims(), [128, 3, 32, 32]);
//! }
//! # Ok::<(), kestrel_data::Error>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod archive;
pub mod bad_samples;
pub mod datasets;
pub mod decode;
#[cfg(feature = "download")]
pub mod download;
mod error;
#[cfg(feature = "download")]
mod file_lock;
pub mod fingerprint;
pub mod inspect;
mod jpeg;
pub mod loader;
mod manifest;
pub mod pixels;
pub mod sampler;
pub mod split;
pub mod transforms;

pub use bad_samples::{BadSamplePolicy, OnBadSample};
pub use datasets::{Dataset, InMemory, Splits, Subset};
pub use error::{Error, Result};
pub use fingerprint::Fingerprint;
