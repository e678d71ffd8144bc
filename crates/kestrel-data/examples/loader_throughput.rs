//! Loads a data set, then times its loader: `cargo run --release -p kestrel-data --example loader_throughput [PATH]`.
//!
//! PATH is anything that `datasets::open` takes; without it, the carried sample is used. The loader flips, crops and
//! normalises batches of 128 from at most 10,000 images in memory; ten epochs are timed.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use kestrel_data::datasets::{self, sample};
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::split::limit;
use kestrel_data::transforms::presets;
use kestrel_data::{Dataset, Result};
use kestrel_kernels::memory::CachingAllocator;

#[global_allocator]
static ALLOCATOR: CachingAllocator = CachingAllocator::new();

fn main() -> Result<()> {
    let started = Instant::now();
    let splits = match std::env::args().nth(1) {
        Some(path) => datasets::open(Path::new(&path))?,
        None => sample::load()?,
    };
    let (train, test) = (splits.train.len(), splits.test.len());
    println!(
        "{train} + {test} images, {} classes, opened in {:.2?}",
        splits.train.classes().len(),
        started.elapsed()
    );

    let train: Arc<dyn Dataset> = splits.train;
    let images: Arc<dyn Dataset> = Arc::new(limit(&train, 10_000)?);
    let config = LoaderConfig {
        shuffle: true,
        ..LoaderConfig::default()
    };
    let loader = DataLoader::new(Arc::clone(&images), presets::cifar_train(32)?, config)?;
    let mut rates = Vec::new();
    for epoch in 0..11 {
        let started = Instant::now();
        for batch in loader.epoch(epoch) {
            std::hint::black_box(batch?);
        }
        // The first epoch warms up.
        if epoch > 0 {
            rates.push(images.len() as f64 / started.elapsed().as_secs_f64());
        }
    }
    rates.sort_by(f64::total_cmp);
    let (low, median, high) = (rates[0], rates[rates.len() / 2], rates[rates.len() - 1]);
    println!(
        "{} images an epoch: median {median:.0} img/s, {low:.0} to {high:.0}",
        images.len()
    );
    Ok(())
}
