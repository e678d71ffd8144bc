//! `gallery.json`: images with what a model says of them: right ones, wrong ones, and those it was surest of and wrong.

use std::path::Path;
use std::sync::Arc;

use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::transforms::Compose;
use kestrel_data::{Dataset, Subset};
use kestrel_kernels::random::{KeyedRng, Purpose};
use kestrel_models::weights::ModelInfo;
use serde::{Deserialize, Serialize};

use super::{Prediction, Thumbnail, denormalize, record_file};
use crate::metrics::Logits;
use crate::predictor::temperature;
use crate::{Evaluation, Result};

const GALLERY_FILE: &str = "gallery.json";
/// Images of each part.
const PART: usize = 12;

/// Images of an evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gallery {
    /// Some that are right, by chance.
    pub right: Vec<GalleryImage>,
    /// Some that are wrong, by chance.
    pub wrong: Vec<GalleryImage>,
    /// The wrong ones with the highest probability, the highest first.
    pub confident_wrong: Vec<GalleryImage>,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GalleryImage {
    /// What the network sees.
    pub picture: Thumbnail,
    /// The predicted class.
    pub predicted: String,
    /// Its probability, in `[0, 1]`.
    #[serde(with = "crate::number")]
    pub probability: f64,
    /// The true class.
    pub target: String,
    /// Its probability.
    #[serde(with = "crate::number")]
    pub target_probability: f64,
    /// Where the image comes from: its file, or its place in the data set.
    pub source: String,
}

impl Gallery {
    /// Chooses images of an evaluation, by `seed`, and reads them again as the network saw them.
    ///
    /// # Errors
    /// Those of reading and transforming the images.
    pub fn new(
        evaluation: &Evaluation,
        info: &ModelInfo,
        dataset: &Arc<dyn Dataset>,
        transforms: &Compose,
        seed: u64,
    ) -> Result<Self> {
        let logits = &evaluation.logits;
        let parts = choose(logits, temperature(info), seed);
        let read = |rows: Vec<usize>| images(logits, &rows, info, dataset, transforms);
        let [right, wrong, confident_wrong] = parts;
        Ok(Self {
            right: read(right)?,
            wrong: read(wrong)?,
            confident_wrong: read(confident_wrong)?,
        })
    }

    /// Writes the gallery into a run's folder.
    ///
    /// # Errors
    /// [`crate::Error::Write`].
    pub fn save(&self, folder: &Path) -> Result<()> {
        record_file::save(self, &folder.join(GALLERY_FILE))
    }

    /// Reads the gallery of a run's folder; `None` where there is none.
    ///
    /// # Errors
    /// [`crate::Error::Read`], [`crate::Error::InvalidRecord`].
    pub fn load(folder: &Path) -> Result<Option<Self>> {
        record_file::load(&folder.join(GALLERY_FILE))
    }
}

impl GalleryImage {
    /// Whether the prediction is the true class.
    pub fn is_right(&self) -> bool {
        self.predicted == self.target
    }

    /// As a tile of the picture of predictions.
    ///
    /// # Errors
    /// [`crate::Error::Picture`] where its pixels cannot be decoded.
    pub(super) fn prediction(&self) -> Result<Prediction> {
        let pixels = self.picture.pixels()?;
        Ok(Prediction {
            size: pixels.width() as usize,
            pixels: pixels.into_raw(),
            predicted: self.predicted.clone(),
            probability: self.probability as f32,
            target: self.target.clone(),
        })
    }
}

/// The rows of right, wrong and most confident wrong images.
fn choose(logits: &Logits, temperature: f64, seed: u64) -> [Vec<usize>; 3] {
    let predicted: Vec<_> = logits.predictions(temperature).collect();
    let mut order: Vec<usize> = (0..predicted.len()).collect();
    KeyedRng::new(seed, Purpose::Shuffle, 0, u64::MAX).shuffle(&mut order);
    let some = |is_right: bool| -> Vec<usize> {
        let rows = order.iter().copied();
        rows.filter(|row| predicted[*row].is_right() == is_right)
            .take(PART)
            .collect()
    };
    let mut wrong: Vec<usize> = (0..predicted.len()).filter(|row| !predicted[*row].is_right()).collect();
    // Stable: equals stay in the data set's order.
    wrong.sort_by(|a, b| predicted[*b].confidence.total_cmp(&predicted[*a].confidence));
    wrong.truncate(PART);
    [some(true), some(false), wrong]
}

fn images(
    logits: &Logits,
    rows: &[usize],
    info: &ModelInfo,
    dataset: &Arc<dyn Dataset>,
    transforms: &Compose,
) -> Result<Vec<GalleryImage>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let indices: Vec<usize> = rows.iter().map(|row| logits.indices()[*row]).collect();
    let config = LoaderConfig {
        batch_size: rows.len(),
        ..LoaderConfig::default()
    };
    let subset = Subset::new(Arc::clone(dataset), indices.clone())?;
    let loader = DataLoader::new(Arc::new(subset), transforms.clone(), config)?;
    let [_, height, width] = loader.image_shape();
    let name = |class: usize| {
        info.classes
            .get(class)
            .cloned()
            .unwrap_or_else(|| format!("class {class}"))
    };
    let mut images = Vec::new();
    for batch in loader.epoch(0) {
        let batch = batch?;
        for (pixels, place) in denormalize(&batch.images, info.mean, info.std)?
            .into_iter()
            .zip(batch.indices)
        {
            let (predicted, probabilities) = logits.probabilities(rows[place], temperature(info));
            let target = logits.targets()[rows[place]] as usize;
            images.push(GalleryImage {
                picture: Thumbnail::new(pixels, width, height)?,
                predicted: name(predicted),
                probability: probabilities[predicted],
                target: name(target),
                target_probability: probabilities[target],
                source: dataset.describe_sample(indices[place]),
            });
        }
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn the_surest_mistakes_come_first_and_parts_are_what_they_say() {
        let mut logits = Logits::new(2);
        let rows: Vec<[f32; 2]> = (0..40).map(|i| [i as f32 / 10.0, 0.0]).collect();
        let targets: Vec<u32> = (0..40).map(|i| u32::from(i % 4 == 0)).collect();
        let indices: Vec<usize> = (100..140).collect();
        let rows = Tensor::from_vec(rows.concat(), (rows.len(), 2), &Device::Cpu).unwrap();
        logits.add(&rows, &targets, &indices).unwrap();
        let [right, wrong, surest] = choose(&logits, 1.0, 0);
        assert_eq!((right.len(), wrong.len()), (PART, 10));
        assert!(right.iter().all(|row| row % 4 != 0) && wrong.iter().all(|row| row % 4 == 0));
        assert_eq!(surest[..3], [36, 32, 28]);
        assert_eq!(choose(&logits, 1.0, 0)[0], right);
        assert_ne!(choose(&logits, 1.0, 1)[0], right);
    }
}
