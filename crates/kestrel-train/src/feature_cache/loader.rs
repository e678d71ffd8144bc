//! A loader of features in an image loader's place.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use candle_core::{Device, DeviceLocation, Tensor};
use kestrel_data::datasets::fingerprint_with_contents;
use kestrel_data::loader::{Batch, DataLoader, LoaderConfig};
use kestrel_data::sampler::SequentialSampler;
use kestrel_data::{Fingerprint, OnBadSample};
use kestrel_kernels::autocast::{Precision, autocast};
use kestrel_kernels::gpus;
use kestrel_kernels::simd::Isa;
use kestrel_models::weights::serialise;
use kestrel_models::{Mode, Model, Params};
use serde_json::json;

use super::FeatureCache;
use super::file::View;
use crate::batch_source::{BatchSource, Batches};
use crate::checkpoint::remove_scratch_files_of_age;
use crate::{Error, Result};

/// No process writes one file for so long: a scratch file of that age was left by one that was killed.
const OLD: Duration = Duration::from_secs(24 * 60 * 60);

/// Changes when the same key would give other features.
const FORMAT: u32 = 2;

/// Gives features in the batches and the order in which an image loader gives images.
pub struct FeatureLoader {
    cache: FeatureCache,
    model: Arc<dyn Model>,
    images: DataLoader,
    views: u64,
    /// Of all that does not depend on the view, as text.
    key: String,
    device: Device,
    precision: Precision,
    tf32: bool,
    /// Those used so far.
    loaded: Mutex<BTreeMap<u64, Arc<View>>>,
}

impl FeatureCache {
    /// The features of `images` before the head of `model`; of augmented images, `views` views.
    ///
    /// `network` says what the model computes, as its weights alone do not. The images' files are read once, for features go by what
    /// they hold.
    ///
    /// # Errors
    /// [`Error::TrainedFeatures`] unless all but the head is frozen, [`Error::MixedFeatures`] where the transforms mix
    /// images, and where the weights or the data cannot be read.
    pub fn loader(
        &self,
        model: Arc<dyn Model>,
        network: &str,
        images: DataLoader,
        views: usize,
    ) -> Result<FeatureLoader> {
        let head = format!("{}.", model.head());
        let trained = model.params().trainable().into_iter().map(|(name, _)| name);
        let trained: Vec<String> = trained.filter(|name| !name.starts_with(&head)).collect();
        if !trained.is_empty() {
            return Err(Error::TrainedFeatures { trained });
        }
        if images.transforms().mixes_batches() {
            return Err(Error::MixedFeatures);
        }
        let key = json!({
            "format": FORMAT,
            "version": env!("CARGO_PKG_VERSION"),
            "instructions": Isa::current().name(),
            "network": network,
            "weights": hash_trunk(model.params(), &head)?,
            "images": fingerprint_with_contents(images.dataset().as_ref())?.to_string(),
            "transforms": images.transforms().specs(),
            "seed": images.config().seed,
        });
        Ok(FeatureLoader {
            cache: self.clone(),
            model,
            device: Device::Cpu,
            precision: Precision::F32,
            tf32: false,
            images,
            views: views.max(1) as u64,
            key: key.to_string(),
            loaded: Mutex::default(),
        })
    }
}

/// What computes the features, where it is not the CPU: other devices round otherwise.
fn name_of(device: &Device) -> Result<Option<String>> {
    Ok(match device.location() {
        DeviceLocation::Cpu => None,
        DeviceLocation::Cuda { gpu_id } => Some(format!("CUDA {}", gpus::gpu(gpu_id)?.name)),
        other => Some(format!("{other:?}")),
    })
}

/// sha256 of every tensor but the head's.
fn hash_trunk(params: &Params, head: &str) -> Result<String> {
    let mut trunk = params.state_dict()?;
    trunk.retain(|name, _| !name.starts_with(head));
    Ok(Fingerprint::of(&serialise(&trunk, "")?).to_string())
}

impl FeatureLoader {
    /// The same loader, with batches on `device`.
    #[must_use]
    pub fn to_device(mut self, device: &Device) -> Self {
        self.device = device.clone();
        self
    }

    /// The same loader, with features computed in a precision.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The same loader, which says whether this process lets a GPU's `f32` convolutions round their factors to TF32: features
    /// computed so are others. It does not switch that on.
    #[must_use]
    pub fn with_tf32(mut self, is_allowed: bool) -> Self {
        self.tf32 = is_allowed;
        self
    }

    /// How many views there are.
    pub fn views(&self) -> u64 {
        self.views
    }

    /// The images that the features are of.
    pub fn images(&self) -> &DataLoader {
        &self.images
    }

    /// The image loader, whose features are let go.
    pub fn into_images(self) -> DataLoader {
        self.images
    }

    /// Makes a view ready: takes it from the disk, unless it lacks images that were damaged and may not be left out, or computes it
    /// and keeps it there. `on_batch(done, total)` is called after
    /// each batch that is computed. Whether it was on the disk.
    ///
    /// # Errors
    /// Where the images, the model or the disk fails.
    pub fn prepare(&self, view: u64, on_batch: &mut dyn FnMut(usize, usize)) -> Result<bool> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.contains_key(&view) {
            return Ok(true);
        }
        let mut key = self.key.clone();
        if self.precision != Precision::F32 {
            key.push_str(&format!(" {}", self.precision));
        }
        if self.tf32 {
            key.push_str(" tf32");
        }
        if let Some(device) = name_of(&self.device)? {
            key.push_str(&format!(" {device}"));
        }
        key.push_str(&format!(" view {view}"));
        let path = self.path(&key);
        let found = View::load(&path, &key).unwrap_or_else(|error| {
            tracing::warn!("{error}; the features are computed again");
            None
        });
        // Of a view that may not be used, the images are read again: then the error is that of a run without a cache.
        let found = found.filter(|view| self.bears(view));
        let from_disk = found.is_some();
        let features = match found {
            Some(features) => features,
            None => {
                let features = self.compute(view, on_batch)?;
                let folder = &self.cache.folder;
                std::fs::create_dir_all(folder).map_err(|source| Error::Write {
                    path: folder.clone(),
                    source,
                })?;
                match remove_scratch_files_of_age(folder, OLD) {
                    Ok(removed) => removed.iter().for_each(|path| {
                        tracing::debug!("Removed {}, which a killed process had left", path.display());
                    }),
                    // They are in nobody's way.
                    Err(error) => tracing::warn!("{error}"),
                }
                features.save(&path, &key)?;
                features
            }
        };
        loaded.insert(view, Arc::new(features));
        Ok(from_disk)
    }

    /// Whether the images that a view lacks, which were damaged, may be left out.
    fn bears(&self, view: &View) -> bool {
        let (samples, policy) = (self.images.dataset().len(), self.images.config().bad_samples);
        let missing = samples.saturating_sub(view.indices.len());
        if missing == 0 {
            return true;
        }
        let borne =
            policy.on_bad_sample == OnBadSample::Skip && missing as f64 <= policy.max_bad_fraction * samples as f64;
        if borne {
            tracing::warn!(
                missing,
                "{missing} of {samples} images have no features, for they are damaged"
            );
        }
        borne
    }

    fn path(&self, key: &str) -> PathBuf {
        let name = Fingerprint::of(key.as_bytes()).to_string();
        self.cache.folder.join(format!("features-{}.safetensors", &name[..32]))
    }

    /// Runs every image once, in the data set's order.
    fn compute(&self, view: u64, on_batch: &mut dyn FnMut(usize, usize)) -> Result<View> {
        let _span = tracing::info_span!("features", view).entered();
        let dataset = Arc::clone(self.images.dataset());
        let sampler = Arc::new(SequentialSampler { len: dataset.len() });
        let config = LoaderConfig {
            shuffle: false,
            drop_last: false,
            ..self.images.config().clone()
        };
        let images = DataLoader::with_sampler(dataset, self.images.transforms().clone(), sampler, config)?;
        let images = images.to_device(&self.device);
        let total = images.num_batches();
        let mut result = View {
            features: Vec::new(),
            num_features: 0,
            indices: Vec::with_capacity(images.num_samples()),
        };
        for (done, batch) in images.epoch(view).enumerate() {
            let batch = batch?;
            let features = autocast(self.precision, || self.model.features(&batch.images, Mode::Eval))?.detach();
            result.num_features = features.dims2()?.1;
            result
                .features
                .extend(features.flatten_all()?.to_device(&Device::Cpu)?.to_vec1::<f32>()?);
            result.indices.extend(batch.indices.iter().map(|index| *index as u32));
            on_batch(done + 1, total);
        }
        Ok(result)
    }
}

impl BatchSource for FeatureLoader {
    fn num_batches(&self) -> usize {
        self.images.num_batches()
    }

    fn num_samples(&self) -> usize {
        self.images.num_samples()
    }

    fn bad_samples(&self) -> Vec<usize> {
        self.images.bad_samples()
    }

    fn add_bad_samples(&self, samples: &[usize]) {
        self.images.add_bad_samples(samples);
    }

    fn epoch_from(&self, epoch: u64, first_batch: usize) -> Result<Box<dyn Batches + '_>> {
        let view = epoch % self.views;
        self.prepare(view, &mut |_, _| {})?;
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let features = loaded
            .get(&view)
            .map(Arc::clone)
            .ok_or(Error::EmptySplit { split: "features" })?;
        Ok(Box::new(Rows {
            loader: self,
            features,
            order: self.images.order(epoch),
            next: first_batch.saturating_mul(self.images.config().batch_size),
        }))
    }
}

/// The batches of an epoch.
struct Rows<'a> {
    loader: &'a FeatureLoader,
    features: Arc<View>,
    order: Vec<usize>,
    /// How many of the order are done.
    next: usize,
}

impl Rows<'_> {
    fn batch(&self, samples: &[usize]) -> Result<Option<Batch>> {
        let mut rows = Vec::with_capacity(samples.len() * self.features.num_features);
        let mut indices = Vec::with_capacity(samples.len());
        for &index in samples {
            match self.features.row(index) {
                Some(row) => {
                    rows.extend_from_slice(row);
                    indices.push(index);
                }
                // A damaged image has no row. It is left out of its batch, and counted, as the image loader does.
                None => self.loader.images.add_bad_samples(&[index]),
            }
        }
        if indices.is_empty() {
            return Ok(None);
        }
        let dataset = self.loader.images.dataset();
        let targets: Vec<u32> = indices.iter().map(|index| dataset.label(*index)).collect();
        let device = &self.loader.device;
        Ok(Some(Batch {
            images: Tensor::from_vec(rows, (indices.len(), self.features.num_features), device)?,
            targets: Tensor::from_vec(targets, indices.len(), device)?,
            soft_targets: None,
            indices,
        }))
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.order.len() {
            let end = self.order.len().min(self.next + self.loader.images.config().batch_size);
            let batch = self.batch(&self.order[self.next..end]);
            self.next = end;
            if let Some(batch) = batch.transpose() {
                return Some(batch);
            }
        }
        None
    }
}

impl Batches for Rows<'_> {
    fn wait(&self) -> Duration {
        Duration::ZERO
    }

    fn next_batch(&self) -> usize {
        self.next.div_ceil(self.loader.images.config().batch_size)
    }
}
