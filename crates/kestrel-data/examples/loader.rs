//! The loader alone: images of any source, changed at random, in batches of candle tensors, made ready on other threads.
//!
//!     cargo run --release --example loader [FOLDER]
//!
//! FOLDER has `train/<class>/*` and `test/<class>/*`; without it the sample that the crate carries is loaded.

use std::env;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::transforms::{Compose, TransformSpec, presets};
use kestrel_data::{Dataset, datasets};

fn main() -> Result<(), Box<dyn Error>> {
    match env::args().nth(1) {
        // Files stay on the disk, and are decoded batch by batch.
        Some(folder) => {
            let path = Path::new(&folder);
            let opened = datasets::open_undecoded(path)?.ok_or("no folder of pictures")?;
            run(opened.splits(path)?.train, presets::imagenet_train(224)?)
        }
        // Small images are held in memory, 8 bits a value.
        None => run(datasets::sample::load()?.train, own_transforms()?),
    }
}

/// torchvision's transforms under their names; the same text may stand in a configuration file.
fn own_transforms() -> Result<Compose, Box<dyn Error>> {
    let specs: Vec<TransformSpec> = toml::from_str::<toml::Table>(
        r#"
        transforms = [
            { name = "RandomCrop", size = 32, padding = 4 },
            { name = "RandomHorizontalFlip", p = 0.5 },
            { name = "ToTensor" },
            { name = "Normalize", mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] },
        ]"#,
    )?["transforms"]
        .clone()
        .try_into()?;
    Ok(Compose::from_specs(&specs)?)
}

fn run(dataset: Arc<dyn Dataset>, transforms: Compose) -> Result<(), Box<dyn Error>> {
    println!("{} images of {} classes", dataset.len(), dataset.classes().len());
    let config = LoaderConfig {
        batch_size: 128,
        shuffle: true,
        seed: 0,
        ..LoaderConfig::default()
    };
    let loader = DataLoader::new(dataset, transforms, config)?;
    // A batch is a function of the seed, the epoch and its place: any number of threads gives the same.
    for epoch in 0..2 {
        let (started, mut images) = (Instant::now(), 0);
        for batch in loader.epoch(epoch) {
            let batch = batch?;
            if images == 0 {
                println!(
                    "{:?} and {:?}, the first {:?}",
                    batch.images,
                    batch.targets,
                    batch.indices.first()
                );
            }
            images += batch.indices.len();
        }
        let rate = images as f64 / started.elapsed().as_secs_f64();
        println!("epoch {epoch}: {images} images, {rate:.0} a second");
    }
    Ok(())
}

#[test]
fn the_sample_is_loaded() -> Result<(), Box<dyn Error>> {
    run(datasets::sample::load()?.train, own_transforms()?)
}
