//! The loader on a folder of photographs, as PyTorch's benchmark of the same case.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use candle_core::Device;
use kestrel_data::Dataset;
use kestrel_data::datasets::ImageFolder;
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::transforms::presets;

use super::clock;

/// All images of `folder`: a random crop resized to 224, flip, normalise, shuffled batches of 64.
pub(super) fn load(folder: &Path, repeats: u64, device: &Device) -> Result<Vec<f64>> {
    let dataset = ImageFolder::open(folder)?;
    let n = dataset.len();
    let config = LoaderConfig {
        batch_size: 64,
        shuffle: true,
        ..LoaderConfig::default()
    };
    let loader = DataLoader::new(Arc::new(dataset), presets::imagenet_train(224)?, config)?.to_device(device);
    let mut epoch = 0;
    clock(n, repeats, || {
        let mut seen = 0;
        for batch in loader.epoch(epoch) {
            seen += batch?.len();
        }
        anyhow::ensure!(seen == n, "the loader gave {seen} of {n} images");
        epoch += 1;
        Ok(())
    })
}
