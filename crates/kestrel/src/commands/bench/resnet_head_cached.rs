//! Epochs of ResNet-18's last layer on kept features: what `finetune-resnet` does while the others are frozen.

use std::sync::Arc;

use anyhow::Result;
use candle_core::{DType, Device};
use kestrel_data::Dataset;
use kestrel_data::datasets::InMemory;
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::transforms::presets;
use kestrel_kernels::random::{KeyedRng, Purpose};
use kestrel_kernels::{AdamConfig, cross_entropy, tape};
use kestrel_models::{Depth, Mode, Model, ResNet, ResNetConfig};
use kestrel_train::BatchSource;
use kestrel_train::feature_cache::{FeatureCache, Head};
use kestrel_train::optim::{Adam, Optimizer};

use super::clock;

const IMAGES: usize = 1024;
const SIDE: usize = 224;
const CLASSES: usize = 10;
/// Epochs of one measurement: one by itself takes milliseconds.
const EPOCHS: u64 = 10;

/// Batch 32: the features' rows gathered in shuffled order, forward, cross-entropy, backward, Adam, and the loss read back.
/// What computes the features is not counted; it is done once, at the speed of an evaluation.
pub(super) fn train(repeats: u64, device: &Device) -> Result<Vec<f64>> {
    let model = ResNet::new(ResNetConfig::new(Depth::ResNet18, CLASSES), 0, DType::F32, device)?;
    model.freeze_all_but_head()?;
    let model: Arc<dyn Model> = Arc::new(model);
    let config = LoaderConfig {
        batch_size: 32,
        shuffle: true,
        ..LoaderConfig::default()
    };
    let images = DataLoader::new(images()?, presets::imagenet_eval(SIDE, SIDE)?, config)?.to_device(device);
    let folder = tempfile::tempdir()?;
    let cache = FeatureCache::new(folder.path().to_owned());
    let features = cache
        .loader(Arc::clone(&model), "resnet18", images, 1)?
        .to_device(device);
    features.prepare(0, &mut |_, _| {})?;

    let head = Head::new(Arc::clone(&model));
    let adam = AdamConfig {
        lr: 1e-3,
        ..AdamConfig::default()
    };
    let mut optimizer = Adam::new(model.params().trainable(), adam)?;
    let (mut epoch, mut step) = (0, 0);
    clock(EPOCHS as usize * IMAGES, repeats, || {
        for _ in 0..EPOCHS {
            for batch in features.epoch(epoch)? {
                let batch = batch?;
                let logits = head.forward(&batch.images, Mode::Train { seed: 0, step })?;
                let loss = cross_entropy(&logits, &batch.targets)?;
                optimizer.step(&tape::backward(&loss)?)?;
                loss.to_scalar::<f32>()?;
                step += 1;
            }
            epoch += 1;
        }
        Ok(())
    })
}

/// Random pixels.
fn images() -> Result<Arc<dyn Dataset>> {
    let mut rng = KeyedRng::new(0, Purpose::Init, 0, 1);
    let pixels: Vec<u8> = (0..IMAGES * 3 * SIDE * SIDE / 4)
        .flat_map(|_| rng.next_u32().to_le_bytes())
        .collect();
    let labels = (0..IMAGES).map(|_| rng.below(CLASSES as u64) as u32).collect();
    let classes = (0..CLASSES).map(|class| class.to_string()).collect();
    Ok(Arc::new(InMemory::new(
        pixels,
        SIDE,
        SIDE,
        labels,
        classes,
        "random pixels",
    )?))
}
