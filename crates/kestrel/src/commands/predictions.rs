//! Predictions on single images, and their picture.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use candle_core::Device;
use kestrel_data::{BadSamplePolicy, Subset};
use kestrel_kernels::random::{KeyedRng, Purpose};
use kestrel_models::Model;
use kestrel_models::weights::ModelInfo;
use kestrel_train::predictor::{probabilities, temperature, top_k};
use kestrel_train::report::{Prediction, denormalize, save_prediction_grid};

use crate::data::{self, EvalImages};

/// Writes a picture of `count` images, chosen by `seed`, with what the model says of them.
///
/// Where damaged images are skipped, others are chosen in their place, however many are damaged: whoever has evaluated the
/// images has held them to the cap.
pub(crate) fn save(
    model: &dyn Model,
    info: &ModelInfo,
    images: &EvalImages,
    count: usize,
    seed: u64,
    device: &Device,
    path: &Path,
) -> Result<()> {
    let mut indices: Vec<usize> = (0..images.dataset.len()).collect();
    KeyedRng::new(seed, Purpose::Shuffle, 0, u64::MAX).shuffle(&mut indices);
    let shuffled = EvalImages {
        dataset: Arc::new(Subset::new(Arc::clone(&images.dataset), indices)?),
        transforms: images.transforms.clone(),
        bad_samples: BadSamplePolicy {
            max_bad_fraction: 1.0,
            ..images.bad_samples
        },
    };
    let loader = data::eval_loader(shuffled, count.clamp(1, 100), 1)?.to_device(device);
    let size = info.model.image_size();
    let name = |class: usize| {
        info.classes
            .get(class)
            .cloned()
            .unwrap_or_else(|| format!("class {class}"))
    };
    let mut predictions = Vec::with_capacity(count);
    for batch in loader.epoch(0) {
        if predictions.len() >= count {
            break;
        }
        let batch = batch?;
        let pictures = denormalize(&batch.images, info.mean, info.std)?;
        let targets = batch.targets.to_device(&Device::Cpu)?.to_vec1::<u32>()?;
        let probabilities = probabilities(model, &batch.images, temperature(info))?;
        for ((pixels, target), row) in pictures.into_iter().zip(targets).zip(probabilities) {
            let Some((best, probability)) = top_k(&row, 1).pop() else {
                continue;
            };
            predictions.push(Prediction {
                pixels,
                size,
                predicted: name(best),
                probability,
                target: name(target as usize),
            });
        }
    }
    predictions.truncate(count);
    Ok(save_prediction_grid(&predictions, &info.classes, path)?)
}
