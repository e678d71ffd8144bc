//! Predictions on single images, and their picture.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use candle_core::Device;
use kestrel_data::Subset;
use kestrel_kernels::random::{KeyedRng, Purpose};
use kestrel_models::Model;
use kestrel_models::weights::ModelInfo;
use kestrel_train::predict_probabilities;
use kestrel_train::report::{Prediction, denormalize, save_prediction_grid};

use crate::data::{self, EvalImages};

/// Writes a picture of `count` images, chosen by `seed`, with what the model says of them.
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
    indices.truncate(count);
    let chosen = EvalImages {
        dataset: Arc::new(Subset::new(Arc::clone(&images.dataset), indices)?),
        transforms: images.transforms.clone(),
        bad_samples: images.bad_samples,
    };
    let loader = data::eval_loader(chosen, count.clamp(1, 100), 1)?.to_device(device);
    let size = info.model.image_size();
    let name = |class: usize| {
        info.classes
            .get(class)
            .cloned()
            .unwrap_or_else(|| format!("class {class}"))
    };
    let mut predictions = Vec::with_capacity(count);
    for batch in loader.epoch(0) {
        let batch = batch?;
        let pictures = denormalize(&batch.images, info.mean, info.std)?;
        let targets = batch.targets.to_device(&Device::Cpu)?.to_vec1::<u32>()?;
        let probabilities = predict_probabilities(model, &batch.images)?;
        for ((pixels, target), row) in pictures.into_iter().zip(targets).zip(probabilities) {
            let best = row
                .iter()
                .enumerate()
                .fold(0, |best, (i, p)| if *p > row[best] { i } else { best });
            predictions.push(Prediction {
                pixels,
                size,
                predicted: name(best),
                probability: row[best],
                target: name(target as usize),
            });
        }
    }
    Ok(save_prediction_grid(&predictions, path)?)
}
