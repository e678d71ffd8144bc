//! Times the loader on a folder of photographs: `cargo run --release -p kestrel-data --example folder_throughput DIR [EPOCHS]`.
//!
//! DIR holds one folder a class. The loader crops to 224, flips and normalises in batches of 64; after each epoch, the speed
//! and the memory that the process has resident (on Linux) are printed.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use kestrel_data::datasets::ImageFolder;
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::transforms::presets;
use kestrel_data::{Dataset, Result};
use kestrel_kernels::memory::CachingAllocator;

#[global_allocator]
static ALLOCATOR: CachingAllocator = CachingAllocator::new();

/// The `VmRSS` line of the process, where there is one.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or("unknown".to_owned(), |line| line.trim().to_owned())
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().unwrap_or_else(|| ".".to_owned());
    let epochs = args.next().and_then(|epochs| epochs.parse().ok()).unwrap_or(10);
    let images = ImageFolder::open(Path::new(&folder))?;
    let n = images.len();
    let config = LoaderConfig {
        batch_size: 64,
        shuffle: true,
        ..LoaderConfig::default()
    };
    let loader = DataLoader::new(Arc::new(images), presets::imagenet_train(224)?, config)?;
    for epoch in 0..epochs {
        let started = Instant::now();
        for batch in loader.epoch(epoch) {
            std::hint::black_box(batch?);
        }
        let rate = n as f64 / started.elapsed().as_secs_f64();
        println!("epoch {epoch}: {rate:.0} img/s, resident {}", resident());
    }
    Ok(())
}
