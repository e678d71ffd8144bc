//! The loader on images in memory, as PyTorch's benchmark of the same case.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use candle_core::Device;
use kestrel_data::InMemory;
use kestrel_data::datasets::cifar10;
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::transforms::presets;
use kestrel_kernels::random::{KeyedRng, Purpose};

use super::clock;

/// Epochs of a repeat: one takes a few milliseconds, less than a clock's disturbances.
const EPOCHS: u64 = 10;

/// 10,000 images: flip, crop, normalise, shuffled batches of 128.
pub(super) fn load(repeats: u64, device: &Device) -> Result<Vec<f64>> {
    let n = 10_000;
    let mut rng = KeyedRng::new(0, Purpose::Init, 0, 3);
    let pixels: Vec<u8> = (0..n * 32 * 32 * 3).map(|_| rng.next_u32() as u8).collect();
    let labels: Vec<u32> = (0..n as u32).map(|i| i % 10).collect();
    let classes = cifar10::CLASSES.map(String::from).to_vec();
    let dataset = InMemory::new(pixels, 32, 32, labels, classes, Path::new("random images"))?;
    let config = LoaderConfig {
        batch_size: 128,
        shuffle: true,
        ..LoaderConfig::default()
    };
    let loader = DataLoader::new(Arc::new(dataset), presets::cifar_train(32)?, config)?.to_device(device);
    let mut epoch = 0;
    clock(n * EPOCHS as usize, repeats, || {
        for epoch in epoch..epoch + EPOCHS {
            let mut seen = 0;
            for batch in loader.epoch(epoch) {
                seen += batch?.len();
            }
            anyhow::ensure!(seen == n, "the loader gave {seen} of {n} images");
        }
        epoch += EPOCHS;
        Ok(())
    })
}
