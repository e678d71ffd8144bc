//! `data.json`: what a run trains on: how many images of each class, and what its augmentations make of some.

use std::path::Path;
use std::sync::Arc;

use image::imageops::{FilterType, replace, resize};
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::transforms::Compose;
use kestrel_data::{Dataset, Subset};
use serde::{Deserialize, Serialize};

use super::canvas::Canvas;
use super::{Thumbnail, denormalize, record_file};
use crate::Result;

const DATA_FILE: &str = "data.json";
/// Images that are shown.
const IMAGES: usize = 4;
/// Augmented views of each.
const VIEWS: u64 = 6;

/// What a run trains on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataRecord {
    /// The names of the classes, by index.
    pub classes: Vec<String>,
    /// Its splits.
    pub splits: Vec<SplitRecord>,
    /// Training images as they are trained on.
    #[serde(default)]
    pub augmentations: Vec<Augmentation>,
}

/// How many images a split has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SplitRecord {
    /// Its name.
    pub name: String,
    /// Images of each class.
    pub counts: Vec<u64>,
}

/// An image and what the random transforms make of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Augmentation {
    /// As it is evaluated.
    pub original: Thumbnail,
    /// Draws of the random transforms, as training makes them epoch after epoch.
    pub views: Vec<Thumbnail>,
}

impl DataRecord {
    /// Of named splits, without augmentations.
    pub fn new(splits: &[(&str, &dyn Dataset)]) -> Self {
        let record = |(name, dataset): &(&str, &dyn Dataset)| {
            let mut counts = vec![0; dataset.classes().len()];
            for index in 0..dataset.len() {
                if let Some(count) = counts.get_mut(dataset.label(index) as usize) {
                    *count += 1;
                }
            }
            SplitRecord {
                name: (*name).to_owned(),
                counts,
            }
        };
        Self {
            classes: splits
                .first()
                .map_or_else(Vec::new, |(_, dataset)| dataset.classes().to_vec()),
            splits: splits.iter().map(record).collect(),
            augmentations: Vec::new(),
        }
    }

    /// Adds what the training loader makes of some images of different classes; `eval` are the transforms that show them as they are.
    ///
    /// # Errors
    /// Those of reading and transforming the images.
    pub fn with_augmentations(mut self, train: &DataLoader, eval: &Compose) -> Result<Self> {
        let indices = of_different_classes(train.dataset().as_ref());
        let original = pictures(train, &indices, eval, 0)?;
        let mut views = vec![Vec::new(); original.len()];
        for epoch in 0..VIEWS {
            let made = pictures(train, &indices, train.transforms(), epoch)?;
            for (views, view) in views.iter_mut().zip(made) {
                views.push(view);
            }
        }
        let both = original.into_iter().zip(views);
        self.augmentations = both.map(|(original, views)| Augmentation { original, views }).collect();
        Ok(self)
    }

    /// The augmentations as a picture: a row each image, the original first.
    ///
    /// # Errors
    /// [`crate::Error::Picture`] where a picture cannot be decoded.
    pub(super) fn picture(&self) -> Result<Canvas> {
        const TILE: u32 = 128;
        const GAP: u32 = 8;
        let columns = 1 + self
            .augmentations
            .iter()
            .map(|image| image.views.len())
            .max()
            .unwrap_or(0) as u32;
        let place = |at: u32| GAP + at * (TILE + GAP);
        let mut canvas = Canvas::new(place(columns), place(self.augmentations.len() as u32));
        for (row, image) in (0..).zip(&self.augmentations) {
            for (column, view) in (0..).zip(std::iter::once(&image.original).chain(&image.views)) {
                let pixels = resize(&view.pixels()?, TILE, TILE, FilterType::Nearest);
                replace(&mut canvas.0, &pixels, i64::from(place(column)), i64::from(place(row)));
            }
        }
        Ok(canvas)
    }

    /// Writes the record into a run's folder.
    ///
    /// # Errors
    /// [`crate::Error::Write`].
    pub fn save(&self, folder: &Path) -> Result<()> {
        record_file::save(self, &folder.join(DATA_FILE))
    }

    /// Reads the record of a run's folder; `None` where there is none.
    ///
    /// # Errors
    /// [`crate::Error::Read`], [`crate::Error::InvalidRecord`].
    pub fn load(folder: &Path) -> Result<Option<Self>> {
        record_file::load(&folder.join(DATA_FILE))
    }
}

/// The first image of each of the first classes; further ones of theirs where there are fewer classes.
fn of_different_classes(dataset: &dyn Dataset) -> Vec<usize> {
    let mut seen = vec![0; dataset.classes().len().max(1)];
    let mut of_class = |index: &usize| {
        let count = &mut seen[dataset.label(*index) as usize];
        *count += 1;
        *count <= IMAGES.div_ceil(dataset.classes().len().max(1))
    };
    let mut indices: Vec<usize> = (0..dataset.len()).filter(|index| of_class(index)).collect();
    indices.sort_by_key(|index| (dataset.label(*index), *index));
    indices.truncate(IMAGES);
    indices
}

/// Images through transforms, as a loader of this seed makes them in an epoch. Damaged images are left out as in training.
fn pictures(train: &DataLoader, indices: &[usize], transforms: &Compose, epoch: u64) -> Result<Vec<Thumbnail>> {
    let mut bad_samples = train.config().bad_samples;
    // Training holds them to their share; here a few images are looked at.
    bad_samples.max_bad_fraction = 1.0;
    let config = LoaderConfig {
        batch_size: indices.len(),
        shuffle: false,
        bad_samples,
        seed: train.config().seed,
        ..LoaderConfig::default()
    };
    let subset = Subset::new(Arc::clone(train.dataset()), indices.to_vec())?;
    let loader = match DataLoader::new(Arc::new(subset), transforms.clone(), config) {
        // Every one of them is damaged and skipped.
        Err(kestrel_data::Error::EmptySplit { .. }) => return Ok(Vec::new()),
        loader => loader?,
    };
    let [_, height, width] = loader.image_shape();
    let normalize = transforms.normalization();
    let (mean, std) = normalize.map_or(([0.0; 3], [1.0; 3]), |n| (n.mean(), n.std()));
    let mut pictures = Vec::new();
    for batch in loader.epoch(epoch) {
        for pixels in denormalize(&batch?.images, mean, std)? {
            pictures.push(Thumbnail::new(pixels, width, height)?);
        }
    }
    Ok(pictures)
}

#[cfg(test)]
mod tests {
    use kestrel_data::datasets::sample;
    use kestrel_data::transforms::presets;

    use super::*;

    #[test]
    fn classes_are_counted_and_views_differ() {
        let splits = sample::load().unwrap();
        let train: Arc<dyn Dataset> = splits.train;
        let loader = DataLoader::new(
            Arc::clone(&train),
            presets::cifar_train(32).unwrap(),
            LoaderConfig::default(),
        )
        .unwrap();
        let record = DataRecord::new(&[("train", train.as_ref()), ("test", splits.test.as_ref())])
            .with_augmentations(&loader, &presets::cifar_eval().unwrap())
            .unwrap();
        assert_eq!(record.splits[0].counts.iter().sum::<u64>(), 6000);
        assert_eq!(record.splits[1].counts, [100; 10]);
        assert_eq!(record.augmentations.len(), IMAGES);
        for image in &record.augmentations {
            assert_eq!(image.views.len(), VIEWS as usize);
            assert!(image.views.iter().any(|view| *view != image.views[0]));
        }
        let dir = tempfile::tempdir().unwrap();
        record.save(dir.path()).unwrap();
        assert_eq!(DataRecord::load(dir.path()).unwrap().as_ref(), Some(&record));
    }
}
