//! The stages of a training run: what is trained in each, on images or on features that are kept.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::Device;
use indicatif::MultiProgress;
use kestrel_models::weights::ModelInfo;
use kestrel_models::{Model, is_buffer};
use kestrel_train::checkpoint::Checkpoint;
use kestrel_train::feature_cache::{FeatureCache, FeatureLoader, Head};
use kestrel_train::{BatchSource, Callback, Progress as Done, Trainer, TrainerConfig};

use super::listeners::{Ending, Listeners};
use super::train::Loaders;
use crate::config::{PrecisionName, Stage};
use crate::progress::{self, Progress};

/// Where features are kept, under the folder of downloads.
const FOLDER: &str = "features";

/// What a stage trains and validates on.
pub(super) enum Batches {
    Images(Loaders),
    /// Of the training and of the validation images.
    Features(Box<[FeatureLoader; 2]>),
}

impl Batches {
    pub(super) fn images(loaders: Loaders) -> Self {
        Self::Images(loaders)
    }

    pub(super) fn train(&self) -> &dyn BatchSource {
        match self {
            Self::Images(loaders) => &loaders.train,
            Self::Features(both) => &both[0],
        }
    }

    fn val(&self) -> &dyn BatchSource {
        match self {
            Self::Images(loaders) => &loaders.val,
            Self::Features(both) => &both[1],
        }
    }
}

/// A run that is about to train.
pub(super) struct Run<'a> {
    pub(super) model: &'a Arc<dyn Model>,
    pub(super) info: &'a ModelInfo,
    pub(super) stages: &'a [Stage],
    pub(super) folder: &'a Path,
    /// Where it goes on from.
    pub(super) resumed: Option<&'a Checkpoint>,
    pub(super) device: &'a Device,
    pub(super) bars: &'a MultiProgress,
}

impl Run<'_> {
    /// Trains stage after stage. How far the run has come in the end, and why it ended there.
    pub(super) fn fit(&self, mut loaders: Loaders, listeners: &mut Listeners) -> Result<(Done, Ending)> {
        let epochs = self.stages.last().map_or(0, |stage| stage.last_epoch);
        let mut resumed = self.resumed;
        let mut done = Done::default();
        for (i, stage) in self.stages.iter().enumerate() {
            // A checkpoint at the end of a stage is that stage's; one within the epoch after it is the next one's.
            let is_over = |checkpoint: &Checkpoint| {
                let Done { epoch, position, .. } = checkpoint.progress();
                *epoch + usize::from(position.is_some()) > stage.last_epoch
            };
            if resumed.is_some_and(is_over) {
                continue;
            }
            stage.prepare(self.model.as_ref())?;
            self.say(i, stage);
            if let Some(checkpoint) = resumed {
                // Features are computed before there is a trainer to restore, and must be those of these weights.
                checkpoint.restore_weights(self.model.as_ref()).context("resuming")?;
            }
            let batches = self.batches(stage, loaders)?;
            let mut trainer = trainer(stage, Arc::clone(self.model), &batches, self.info)?.with_progress(done);
            if let Some(checkpoint) = resumed.take() {
                checkpoint.restore(&mut trainer).context("resuming")?;
            }
            let mut progress = Progress::new(self.bars, epochs);
            listeners.set_stage(i + 1);
            let mut freezing = stage.config.freezing(self.model.as_ref())?;
            let mut more: Vec<&mut dyn Callback> = vec![&mut progress];
            more.extend(freezing.as_mut().map(|freezing| freezing as &mut dyn Callback));
            listeners.during(&mut more, |all| trainer.fit(batches.train(), batches.val(), all))?;
            done = trainer.progress().clone();
            let ending = listeners.ending(self.folder, &done, epochs);
            if matches!(ending, Ending::Stopped(_)) {
                return Ok((done, ending));
            }
            loaders = batches.into_loaders();
        }
        if let Some(checkpoint) = resumed {
            // It has come further than it is now asked to.
            done = checkpoint.progress().clone();
        }
        Ok((done, Ending::Complete))
    }

    fn say(&self, number: usize, stage: &Stage) {
        let params = self.model.params();
        let trained = params.num_parameters();
        let all: usize = params
            .all()
            .iter()
            .filter(|(name, _)| !is_buffer(name))
            .map(|(_, var)| var.elem_count())
            .sum();
        if self.stages.len() == 1 && trained == all {
            return;
        }
        let groups = self.model.layer_groups().into_iter();
        let groups: Vec<&str> = groups
            .filter(|group| !group.is_frozen(params))
            .map(|group| group.name)
            .collect();
        tracing::info!(
            "Stage {} of {}: to epoch {}, {} is trained, {trained} of {all} parameters (lr {:.1e})",
            number + 1,
            self.stages.len(),
            stage.last_epoch,
            groups.join(", "),
            stage.config.lr,
        );
    }

    /// The images, or their features where only the head is trained and they may be kept.
    fn batches(&self, stage: &Stage, loaders: Loaders) -> Result<Batches> {
        let views = stage.config.views();
        let head = format!("{}.", self.model.head());
        let params = self.model.params().trainable();
        let head_alone = !self.model.head().is_empty() && params.iter().all(|(name, _)| name.starts_with(&head));
        // Mixed images have no features of their own, and are not kept unless that was asked for, which is an error.
        let mixed = loaders.train.transforms().mixes_batches() && stage.config.cache_views.is_none();
        if !head_alone || views == 0 || mixed {
            return Ok(Batches::images(loaders));
        }
        let cache = FeatureCache::new(stage.config.data_dir.join(FOLDER));
        let network = serde_json::to_string(&self.network()?)?;
        let kept = |images, views| -> Result<FeatureLoader> {
            let loader = cache.loader(Arc::clone(self.model), &network, images, views)?;
            Ok(loader
                .to_device(self.device)
                .with_precision(stage.config.precision.into())
                .with_tf32(stage.config.precision == PrecisionName::Tf32))
        };
        let train = kept(loaders.train, views.min(stage.config.epochs))?;
        let val = kept(loaders.val, 1)?;
        for (what, loader) in [("training", &train), ("validation", &val)] {
            for view in 0..loader.views() {
                self.prepare(what, loader, view)?;
            }
        }
        Ok(Batches::Features(Box::new([train, val])))
    }

    /// The network without what only its head depends on.
    fn network(&self) -> Result<serde_json::Value> {
        let mut network = serde_json::to_value(&self.info.model)?;
        if let Some(fields) = network.as_object_mut() {
            fields.remove("num_classes");
        }
        Ok(network)
    }

    fn prepare(&self, what: &str, loader: &FeatureLoader, view: u64) -> Result<()> {
        let of = match loader.views() {
            1 => String::new(),
            views => format!(", view {} of {views}", view + 1),
        };
        let bar = progress::steps(self.bars, &format!("Features{of}"), loader.num_batches() as u64);
        let started = std::time::Instant::now();
        let result = loader.prepare(view, &mut |done, _| bar.set_position(done as u64));
        bar.finish_and_clear();
        self.bars.remove(&bar);
        let images = loader.images().dataset().len();
        let seconds = started.elapsed().as_secs_f64();
        if result? {
            tracing::info!("Features: {images} {what} images{of}, kept from an earlier run");
        } else {
            let rate = images as f64 / seconds.max(f64::MIN_POSITIVE);
            tracing::info!("Features: {images} {what} images{of}, computed in {seconds:.1} s, {rate:.0} img/s");
        }
        Ok(())
    }
}

impl Batches {
    fn into_loaders(self) -> Loaders {
        match self {
            Self::Images(loaders) => loaders,
            Self::Features(both) => {
                let [train, val] = *both;
                Loaders {
                    train: train.into_images(),
                    val: val.into_images(),
                }
            }
        }
    }
}

/// A trainer at the start of a stage.
pub(super) fn trainer(stage: &Stage, model: Arc<dyn Model>, batches: &Batches, info: &ModelInfo) -> Result<Trainer> {
    let config = &stage.config;
    let num_batches = batches.train().num_batches();
    let optimizer = config.optimizer(model.as_ref(), num_batches)?;
    let scheduler = config.scheduler(num_batches)?;
    let trainer_config = TrainerConfig {
        epochs: stage.last_epoch,
        log_every: config.log_every,
        seed: config.seed,
    };
    let model: Box<dyn Model> = match batches {
        Batches::Images(_) => Box::new(model),
        Batches::Features(_) => Box::new(Head::new(model)),
    };
    let trainer = Trainer::new(model, optimizer, scheduler, trainer_config)
        .with_loss(config.loss(&info.classes)?)
        .with_grad_clip(config.grad_clip()?)
        .with_accumulation(config.accumulate)
        .with_precision(config.precision.into());
    let trainer = match config.grad_scaler()? {
        Some(scaler) => trainer.with_grad_scaler(scaler),
        None => trainer,
    };
    Ok(match config.average()? {
        Some(average) => trainer.with_average(average),
        None => trainer,
    })
}
