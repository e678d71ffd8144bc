//! The options of a training run: defaults, a TOML file, the command line, in that order.
//!
//! [`TrainOptions`] is what a person may say, on the command line or in a file, under the same names;
//! [`TrainConfig`] is what a run uses, whole, and what is saved beside it. Layers are laid over each other as TOML
//! tables, so an option is named in these two places only.

mod file_names;
mod names;
mod options;
mod spans;
mod transfer;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kestrel_data::transforms::{Compose, TransformSpec};
use kestrel_data::{BadSamplePolicy, Fingerprint, OnBadSample};
use kestrel_kernels::AdamConfig;
use kestrel_train::GradScalerConfig;
use kestrel_train::checkpoint::Every;
use kestrel_train::lr_scheduler::ReduceLROnPlateauConfig;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::cli::LogFormat;
use crate::device::{CpuFeatures, DeviceChoice};

pub(crate) use names::{
    AnnealName, DatasetName, LossName, LrInterval, ModelName, OptimizerName, PrecisionName, PreprocessingName,
    PretrainedName, SamplerName, SchedulerName, StemName, WatchedName,
};
pub(crate) use options::TrainOptions;
pub(crate) use spans::{CheckpointEvery, TimeSpan};
pub(crate) use transfer::Stage;

/// What a run uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)] // Files of earlier versions lack some.
pub(crate) struct TrainConfig {
    pub(crate) dataset: DatasetName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<PathBuf>,
    pub(crate) data_dir: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<usize>,
    pub(crate) val_fraction: f64,
    pub(crate) sampler: SamplerName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) class_weights: Option<String>,
    pub(crate) on_bad_sample: OnBadSample,
    pub(crate) max_bad_fraction: f64,
    pub(crate) batch_size: usize,
    pub(crate) eval_batch_size: usize,
    pub(crate) prefetch: usize,
    pub(crate) preprocessing: PreprocessingName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image_size: Option<usize>,
    pub(crate) augment: bool,
    pub(crate) model: ModelName,
    pub(crate) stem: StemName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) weights: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pretrained: Option<PretrainedName>,
    pub(crate) width: usize,
    pub(crate) dropout: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) num_classes: Option<usize>,
    pub(crate) epochs: usize,
    pub(crate) lr: f64,
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) eps: f64,
    pub(crate) weight_decay: f64,
    pub(crate) optimizer: OptimizerName,
    pub(crate) no_decay_norm_bias: bool,
    pub(crate) norm_bias_lr_factor: f64,
    pub(crate) momentum: f64,
    pub(crate) dampening: f64,
    pub(crate) nesterov: bool,
    pub(crate) alpha: f64,
    pub(crate) centered: bool,
    pub(crate) muon_lr: f64,
    pub(crate) lookahead: u64,
    pub(crate) lookahead_alpha: f64,
    pub(crate) lookahead_power: f64,
    pub(crate) scheduler: SchedulerName,
    pub(crate) lr_interval: LrInterval,
    pub(crate) lr_step_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) milestones: Option<Vec<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) t_max: Option<u64>,
    pub(crate) t_mult: u64,
    pub(crate) pct_start: f64,
    pub(crate) anneal_strategy: AnnealName,
    pub(crate) div_factor: f64,
    pub(crate) final_div_factor: f64,
    pub(crate) warmup: u64,
    pub(crate) warmup_interval: LrInterval,
    pub(crate) warmup_factor: f64,
    pub(crate) loss: LossName,
    pub(crate) focal_gamma: f64,
    pub(crate) label_smoothing: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) loss_class_weights: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clip_grad_norm: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clip_grad_value: Option<f64>,
    pub(crate) precision: PrecisionName,
    pub(crate) loss_scale: f64,
    pub(crate) loss_scale_interval: u64,
    pub(crate) accumulate: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ema: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) swa_start: Option<usize>,
    pub(crate) lr_factor: f64,
    pub(crate) lr_patience: u64,
    pub(crate) lr_threshold: f64,
    pub(crate) lr_cooldown: u64,
    pub(crate) min_lr: f64,
    pub(crate) lr_eps: f64,
    pub(crate) freeze: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) freeze_after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unfreeze: Option<String>,
    pub(crate) unfreeze_epochs: usize,
    pub(crate) unfreeze_lr: f64,
    pub(crate) layer_lr_decay: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_views: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) early_stopping_patience: Option<usize>,
    pub(crate) early_stopping_metric: WatchedName,
    pub(crate) seed: u64,
    pub(crate) device: DeviceChoice,
    pub(crate) threads: usize,
    pub(crate) cpu_features: CpuFeatures,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    pub(crate) runs_dir: PathBuf,
    pub(crate) checkpoint_every: CheckpointEvery,
    pub(crate) keep_last: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_time: Option<TimeSpan>,
    pub(crate) log_every: usize,
    pub(crate) num_images: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verbose: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quiet: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_format: Option<LogFormat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) train_transforms: Option<Vec<TransformSpec>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) eval_transforms: Option<Vec<TransformSpec>>,
}

impl Default for TrainConfig {
    /// The reference recipe.
    fn default() -> Self {
        let adam = AdamConfig::default();
        let plateau = ReduceLROnPlateauConfig::default();
        let scaler = GradScalerConfig::default();
        Self {
            dataset: DatasetName::Auto,
            data: None,
            data_dir: "data".into(),
            limit: None,
            val_fraction: 0.0,
            sampler: SamplerName::Shuffled,
            class_weights: None,
            on_bad_sample: OnBadSample::Error,
            max_bad_fraction: BadSamplePolicy::default().max_bad_fraction,
            batch_size: 128,
            eval_batch_size: 100,
            prefetch: 4,
            preprocessing: PreprocessingName::Cifar,
            image_size: None,
            augment: true,
            model: ModelName::Cnn,
            stem: StemName::Imagenet,
            weights: None,
            pretrained: None,
            width: 64,
            dropout: 0.5,
            num_classes: None,
            epochs: 50,
            lr: 1e-3,
            beta1: adam.beta1,
            beta2: adam.beta2,
            eps: adam.eps,
            weight_decay: 1e-4,
            optimizer: OptimizerName::Adam,
            no_decay_norm_bias: false,
            norm_bias_lr_factor: 1.0,
            momentum: 0.9,
            dampening: 0.0,
            nesterov: false,
            alpha: 0.99,
            centered: false,
            muon_lr: 0.02,
            lookahead: 0,
            lookahead_alpha: 0.5,
            lookahead_power: 0.0,
            scheduler: SchedulerName::Plateau,
            lr_interval: LrInterval::Epoch,
            lr_step_size: 30,
            milestones: None,
            t_max: None,
            t_mult: 1,
            pct_start: 0.3,
            anneal_strategy: AnnealName::Cos,
            div_factor: 25.0,
            final_div_factor: 1e4,
            warmup: 0,
            warmup_interval: LrInterval::Epoch,
            warmup_factor: 0.1,
            loss: LossName::CrossEntropy,
            focal_gamma: 2.0,
            label_smoothing: 0.0,
            loss_class_weights: None,
            clip_grad_norm: None,
            clip_grad_value: None,
            precision: PrecisionName::F32,
            loss_scale: scaler.init_scale,
            loss_scale_interval: scaler.growth_interval,
            accumulate: 1,
            ema: None,
            swa_start: None,
            lr_factor: plateau.factor,
            lr_patience: plateau.patience,
            lr_threshold: plateau.threshold,
            lr_cooldown: plateau.cooldown,
            min_lr: plateau.min_lr,
            lr_eps: plateau.eps,
            freeze: "none".into(),
            freeze_after: None,
            unfreeze: None,
            unfreeze_epochs: 5,
            unfreeze_lr: 1e-4,
            layer_lr_decay: 1.0,
            cache_views: None,
            early_stopping_patience: None,
            early_stopping_metric: WatchedName::ValAccuracy,
            seed: 0,
            device: DeviceChoice::Auto,
            threads: 0,
            cpu_features: CpuFeatures::Auto,
            name: None,
            runs_dir: "runs".into(),
            checkpoint_every: CheckpointEvery(Some(Every::Time(Duration::from_secs(600)))),
            keep_last: 2,
            max_time: None,
            log_every: 100,
            num_images: 8,
            verbose: None,
            quiet: None,
            log_format: None,
            trace: None,
            train_transforms: None,
            eval_transforms: None,
        }
    }
}

/// Options that change no number of a run but by rounding, and may differ when it is resumed.
const HARMLESS: [&str; 21] = [
    "checkpoint-every",
    "cpu-features",
    "data",
    "data-dir",
    "dataset",
    "device",
    "early-stopping-metric",
    "early-stopping-patience",
    "epochs",
    "keep-last",
    "log-every",
    "log-format",
    "max-time",
    "name",
    "num-images",
    "prefetch",
    "quiet",
    "runs-dir",
    "threads",
    "trace",
    "verbose",
];

impl TrainConfig {
    /// Lays `layers` over the defaults, the later over the earlier, and checks the values.
    pub(crate) fn from_layers(layers: &[&TrainOptions]) -> Result<Self> {
        Self::default().overlaid(layers)
    }

    fn overlaid(&self, layers: &[&TrainOptions]) -> Result<Self> {
        let mut table = Table::try_from(self).context("the configuration")?;
        for layer in layers {
            table.extend(layer.table()?);
        }
        let config: Self = table.try_into().context("the configuration")?;
        config.check()?;
        Ok(config)
    }

    /// The configuration of a resumed run: the saved one, with what the layers may change; the later over the earlier.
    /// `others` are differences of other things than options, which the error lists with those of options.
    pub(crate) fn resumed(&self, layers: &[&TrainOptions], others: Vec<String>) -> Result<Self> {
        let saved = Table::try_from(self).context("the saved configuration")?;
        let mut asked = Table::new();
        for layer in layers {
            asked.extend(layer.table()?);
        }
        let mut differing = others;
        let options = asked.iter();
        let options =
            options.filter(|(key, value)| !HARMLESS.contains(&key.as_str()) && saved.get(*key) != Some(value));
        differing.extend(options.map(|(key, value)| {
            let was = saved.get(key).map_or("not set".to_owned(), ToString::to_string);
            format!("--{key} is {value} and was {was}")
        }));
        if !differing.is_empty() {
            bail!(
                "a resumed run keeps what decides its numbers, but {}; go on with what it was, or start a new run",
                differing.join(", ")
            );
        }
        let resumed = self.overlaid(layers)?;
        if resumed.epochs != self.epochs && self.unfreeze.is_some() {
            bail!(
                "epochs is {} and was {}, but a second stage follows them; leave it out, or start a new run",
                resumed.epochs,
                self.epochs
            );
        }
        if resumed.epochs != self.epochs && self.follows_the_run() {
            bail!(
                "epochs is {} and was {}, but the learning rate or lookahead follows the whole run; leave it out, or start a new run",
                resumed.epochs,
                self.epochs
            );
        }
        Ok(resumed)
    }

    fn check(&self) -> Result<()> {
        let sizes = [
            ("batch-size", self.batch_size),
            ("eval-batch-size", self.eval_batch_size),
            ("prefetch", self.prefetch),
            ("epochs", self.epochs),
            ("width", self.width),
            ("accumulate", self.accumulate),
            ("unfreeze-epochs", self.unfreeze_epochs),
        ];
        for (name, value) in sizes {
            if value == 0 {
                bail!("{name} is 0, but must be at least 1");
            }
        }
        if self.limit == Some(0) {
            bail!("limit is 0, but must be at least 1");
        }
        for (name, specs) in [
            ("train-transforms", &self.train_transforms),
            ("eval-transforms", &self.eval_transforms),
        ] {
            if let Some(specs) = specs {
                Compose::from_specs(specs).with_context(|| format!("in {name}"))?;
            }
        }
        if !(0.0..1.0).contains(&self.val_fraction) {
            bail!(
                "val-fraction is {}, but must be at least 0 and below 1",
                self.val_fraction
            );
        }
        if self.early_stopping_patience == Some(0) {
            bail!("early-stopping-patience is 0, but must be at least 1");
        }
        if self.early_stopping_patience.is_none() && self.early_stopping_metric != WatchedName::ValAccuracy {
            bail!(
                "early-stopping-metric is for early-stopping-patience; give that, or leave early-stopping-metric out"
            );
        }
        if self.early_stopping_patience.is_some() && self.unfreeze.is_some() {
            bail!("early-stopping-patience is for a run of one stage; leave it out, or unfreeze");
        }
        self.check_methods()?;
        self.check_transfer()?;
        if !(0.0..1.0).contains(&self.dropout) {
            bail!("dropout is {}, but must be at least 0 and below 1", self.dropout);
        }
        let widest = 1 << 14;
        if self.width > widest {
            bail!("width is {}, but must be at most {widest}", self.width);
        }
        if !self.augment && self.train_transforms.is_some() {
            bail!("train-transforms are given, and augment = false would pass them over; leave one of both out");
        }
        check_bad_samples(self.bad_samples())?;
        if self.class_weights.is_some() != (self.sampler == SamplerName::Weighted) {
            bail!("class-weights and sampler = \"weighted\" go together: give both, or neither");
        }
        if let Some(name) = &self.name
            && (name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']))
        {
            bail!("name is {name:?}, but must be a folder's name without slashes or a leading dot");
        }
        Ok(())
    }

    /// What happens to damaged images.
    pub(crate) fn bad_samples(&self) -> BadSamplePolicy {
        BadSamplePolicy {
            on_bad_sample: self.on_bad_sample,
            max_bad_fraction: self.max_bad_fraction,
        }
    }

    /// Whether transforms are named that are not the reference's.
    pub(crate) fn own_transforms(&self) -> bool {
        self.train_transforms.is_some()
            || self.eval_transforms.is_some()
            || self.preprocessing == PreprocessingName::Imagenet
    }

    /// A hash of the options that decide the run's numbers.
    pub(crate) fn options_hash(&self) -> Result<String> {
        let mut table = Table::try_from(self).context("the configuration")?;
        table.retain(|key, _| !HARMLESS.contains(&key));
        Ok(Fingerprint::of(toml::to_string(&table).context("the configuration")?.as_bytes()).to_string())
    }

    /// The TOML file that gives this configuration again.
    pub(crate) fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).context("the configuration")
    }
}

/// Fails where the options on damaged images make no sense, also those of a command that has no other.
pub(crate) fn check_bad_samples(policy: BadSamplePolicy) -> Result<()> {
    let fraction = policy.max_bad_fraction;
    if policy.on_bad_sample == OnBadSample::Error && fraction != BadSamplePolicy::default().max_bad_fraction {
        bail!("max-bad-fraction is for on-bad-sample skip; choose that, or leave max-bad-fraction out");
    }
    if !(0.0..=1.0).contains(&fraction) {
        bail!("max-bad-fraction is {fraction}, but must be at least 0 and at most 1");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
