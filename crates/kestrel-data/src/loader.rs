//! `DataLoader`: batches of transformed images, made in parallel ahead of whoever trains on them.
//!
//! At most `prefetch` batches are under way at once; within a batch, rayon transforms the images side by side, each straight
//! into its place in the batch. A batch is a function of (data set, transforms, configuration, epoch, place
//! in the epoch), so neither the number of threads nor where an epoch was entered changes it.
//!
//! Shapes: `N` images of a batch, `C = 3` channels, `H, W` after the transforms.

mod epoch;
mod make_batch;
mod resident;

use std::fmt;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::bad_samples::{BadSamplePolicy, BadSamples};
use crate::datasets::Dataset;
use crate::error::{Error, Result};
use crate::pixels::CHANNELS;
use crate::sampler::{RandomSampler, Sampler, SequentialSampler};
use crate::transforms::Compose;

pub use epoch::Epoch;
use make_batch::BatchMaker;
pub(crate) use make_batch::panic_message;
pub use resident::NotResident;

/// How batches are made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoaderConfig {
    /// Images in a batch.
    pub batch_size: usize,
    /// A fresh random order each epoch, instead of the data set's own.
    pub shuffle: bool,
    /// Leave out the last batch of an epoch if it is not full. PyTorch's default, and this one's, is to keep it.
    pub drop_last: bool,
    /// The run's seed, for the order and the random transforms.
    pub seed: u64,
    /// How many batches may be made ahead of the consumer; one is, also for 0.
    pub prefetch: usize,
    /// Threads that transform images; 0 for rayon's own pool, shared with everything else. Never changes a batch.
    pub threads: usize,
    /// What happens to samples whose image is damaged.
    pub bad_samples: BadSamplePolicy,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self {
            batch_size: 128,
            shuffle: false,
            drop_last: false,
            seed: 0,
            prefetch: 2,
            threads: 0,
            bad_samples: BadSamplePolicy::default(),
        }
    }
}

/// Images and labels to train or evaluate on.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[N, C, H, W]`, `f32`.
    pub images: Tensor,
    /// `[N]`, `u32`: each image's class.
    pub targets: Tensor,
    /// `[N, K]`, `f32`: a probability for each of `K` classes, where MixUp or CutMix has mixed the images; `targets` are then
    /// the images' own.
    pub soft_targets: Option<Tensor>,
    /// `[N]`: each image's index in the data set.
    pub indices: Vec<usize>,
}

impl Batch {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether the batch has no images; a loader makes no such batch.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }
}

/// Makes batches from a data set.
///
/// # Source
/// `torch.utils.data.DataLoader`.
pub struct DataLoader {
    maker: Arc<BatchMaker>,
    sampler: Arc<dyn Sampler>,
    config: LoaderConfig,
}

impl fmt::Debug for DataLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("DataLoader");
        fields
            .field("dataset", &self.maker.dataset.describe())
            .field("transforms", &self.maker.transforms);
        fields.field("config", &self.config).finish_non_exhaustive()
    }
}

impl DataLoader {
    /// A loader on the CPU, in the order that `config` says.
    ///
    /// Transforms sample 0 once, to learn the images' size; every other must come out the same. Where bad samples are
    /// skipped, the first good one.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a batch size of 0, [`Error::EmptySplit`], [`Error::Sample`] or [`Error::Panicked`]
    /// for sample 0, [`Error::Io`] if the threads cannot be started.
    pub fn new(dataset: Arc<dyn Dataset>, transforms: Compose, config: LoaderConfig) -> Result<Self> {
        let len = dataset.len();
        let sampler: Arc<dyn Sampler> = if config.shuffle {
            Arc::new(RandomSampler { len, seed: config.seed })
        } else {
            Arc::new(SequentialSampler { len })
        };
        Self::with_sampler(dataset, transforms, sampler, config)
    }

    /// A loader on the CPU, in the order of `sampler`; `config.shuffle` is not looked at.
    ///
    /// # Errors
    /// Those of [`Self::new`].
    pub fn with_sampler(
        dataset: Arc<dyn Dataset>,
        transforms: Compose,
        sampler: Arc<dyn Sampler>,
        config: LoaderConfig,
    ) -> Result<Self> {
        if config.batch_size == 0 {
            return Err(Error::InvalidParameter {
                name: "batch size",
                expected: "at least 1",
                got: "0".into(),
            });
        }
        if dataset.is_empty() || sampler.is_empty() {
            return Err(Error::EmptySplit {
                path: dataset.describe().into(),
            });
        }
        let bad = Arc::new(BadSamples::new(config.bad_samples, dataset.describe(), dataset.len())?);
        let maker = BatchMaker::new(dataset, transforms, config.seed, config.threads, bad)?;
        Ok(Self {
            maker: Arc::new(maker),
            sampler,
            config,
        })
    }

    /// The same loader, with batches on `device`.
    pub fn to_device(self, device: &Device) -> Self {
        let maker = self.maker.as_ref().clone_to(device);
        Self {
            maker: Arc::new(maker),
            ..self
        }
    }

    /// The same loader, with the data set's images kept on `device` as 8-bit pixels, and each batch made there of them: the same
    /// batches, bit for bit. What depends on chance is drawn on the host.
    ///
    /// # Errors
    /// [`Error::NotResident`] where the images or a transform do not allow it: then [`Self::to_device`] makes the batches on
    /// the host. [`Error::Kernel`] where the device has no room.
    pub fn resident_on(&self, device: &Device) -> Result<Self> {
        let maker = self.maker.clone_resident(device)?;
        Ok(Self {
            maker: Arc::new(maker),
            sampler: Arc::clone(&self.sampler),
            config: self.config.clone(),
        })
    }

    /// Whether the images are kept on the device of the batches: [`Self::resident_on`].
    pub fn is_resident(&self) -> bool {
        self.maker.is_resident()
    }

    /// The data set.
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.maker.dataset
    }

    /// The pipeline.
    pub fn transforms(&self) -> &Compose {
        &self.maker.transforms
    }

    /// The configuration.
    pub fn config(&self) -> &LoaderConfig {
        &self.config
    }

    /// How many different samples were skipped so far, in all epochs; see [`BadSamplePolicy`].
    pub fn num_bad_samples(&self) -> usize {
        self.maker.bad.count()
    }

    /// The samples that were skipped so far, in all epochs, in rising order: what a checkpoint keeps for
    /// [`Self::add_bad_samples`].
    pub fn bad_samples(&self) -> Vec<usize> {
        self.maker.bad.seen()
    }

    /// Counts samples as skipped before, so that a run that goes on bears as many bad samples as one that never stopped.
    pub fn add_bad_samples(&self, samples: &[usize]) {
        self.maker.bad.add(samples);
    }

    /// Shape of an image after the transforms, `[C, H, W]`.
    pub fn image_shape(&self) -> [usize; 3] {
        [CHANNELS, self.maker.size.0, self.maker.size.1]
    }

    /// Number of images in an epoch, before bad samples are dropped.
    pub fn num_samples(&self) -> usize {
        let all = self.sampler.len();
        if self.config.drop_last {
            all - all % self.config.batch_size
        } else {
            all
        }
    }

    /// Number of batches in an epoch; an epoch has fewer where all samples of a batch are bad and dropped.
    pub fn num_batches(&self) -> usize {
        self.num_samples().div_ceil(self.config.batch_size)
    }

    /// The samples of an epoch, in the order in which its batches hold them.
    pub fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order = self.sampler.order(epoch);
        order.truncate(self.num_samples());
        order
    }

    /// The batches of an epoch.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        self.epoch_from(epoch, 0)
    }

    /// The batches of an epoch from batch `first_batch` on, without making those before; none if it is past the end.
    pub fn epoch_from(&self, epoch: u64, first_batch: usize) -> Epoch {
        let mut order = self.order(epoch);
        let skipped = first_batch.saturating_mul(self.config.batch_size).min(order.len());
        order.drain(..skipped);
        Epoch::start(
            Arc::clone(&self.maker),
            epoch,
            order,
            first_batch,
            self.config.batch_size,
            self.config.prefetch,
        )
    }
}
