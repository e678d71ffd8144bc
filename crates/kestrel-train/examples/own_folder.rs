//! A classifier of one's own pictures: `FOLDER/train/<class>/*` and `FOLDER/test/<class>/*`, of any sizes and formats.
//!
//!     cargo run --release --example own_folder FOLDER

use std::{env, error::Error, path::Path};

use candle_core::{DType, Device};
use kestrel_data::datasets;
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::transforms::presets::{imagenet_eval, imagenet_train};
use kestrel_kernels::{AdamConfig, memory::CachingAllocator};
use kestrel_models::{CnnConfig, ModelConfig};
use kestrel_train::{Trainer, TrainerConfig, optim::Adam};

/// Keeps a step's large blocks for the next one; the system's allocator gives them back each time.
#[global_allocator]
static ALLOCATOR: CachingAllocator = CachingAllocator::new();

fn train(folder: &Path, epochs: usize) -> Result<f64, Box<dyn Error>> {
    let data = datasets::open_undecoded(folder)?.ok_or("no pictures")?.splits(folder)?;
    let shuffled = LoaderConfig {
        shuffle: true,
        ..LoaderConfig::default()
    };
    let train = DataLoader::new(data.train.clone(), imagenet_train(32)?, shuffled)?;
    let test = DataLoader::new(data.test, imagenet_eval(36, 32)?, LoaderConfig::default())?;
    let network = ModelConfig::Cnn(CnnConfig::new(data.train.classes().len()));
    let model = network.build(0, DType::F32, &Device::Cpu)?;
    let adam = Adam::new(model.params().trainable(), AdamConfig::default())?;
    let options = TrainerConfig {
        epochs,
        log_every: 0,
        seed: 0,
    };
    let mut trainer = Trainer::new(model, Box::new(adam), None, options);
    trainer.fit(&train, &test, &mut [])?;
    Ok(trainer.progress().best_accuracy.unwrap_or(0.0))
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args().nth(1).ok_or("usage: own_folder FOLDER")?;
    let accuracy = train(Path::new(&folder), 10)?;
    println!("best accuracy on the test pictures: {:.2}%", 100.0 * accuracy);
    Ok(())
}

/// Dark and bright pictures of several sizes.
#[test]
fn a_folder_is_learnt() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    for (split, count) in [("train", 32), ("test", 8)] {
        for (class, level) in [("bright", 200), ("dark", 20)] {
            let place = folder.path().join(split).join(class);
            std::fs::create_dir_all(&place)?;
            for i in 0..count {
                let picture =
                    image::RgbImage::from_fn(40 + i, 48, |x, y| image::Rgb([level, (x * y) as u8 / 8, level]));
                picture.save(place.join(format!("{i}.png")))?;
            }
        }
    }
    let accuracy = train(folder.path(), 12)?;
    assert!(accuracy > 0.9, "{accuracy}");
    Ok(())
}
