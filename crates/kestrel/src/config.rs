//! The options of a training run: defaults, a TOML file, the command line, in that order.
//!
//! [`TrainOptions`] is what a person may say, on the command line or in a file, under the same names;
//! [`TrainConfig`] is what a run uses, whole, and what is saved beside it. Layers are laid over each other as TOML
//! tables, so an option is named in these two places only.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use kestrel_data::transforms::{Compose, TransformSpec};
use kestrel_data::{BadSamplePolicy, OnBadSample};
use kestrel_kernels::AdamConfig;
use kestrel_train::lr_scheduler::ReduceLROnPlateauConfig;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::cli::{LogFormat, LoggingArgs};
use crate::device::{CpuFeatures, DeviceChoice};

/// A data set by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DatasetName {
    /// CIFAR-10; the embedded sample where it cannot be had.
    Auto,
    /// CIFAR-10, or an error.
    Cifar10,
    /// CIFAR-100, or an error.
    Cifar100,
    /// The embedded sample: 6,000 + 1,000 images of Fashion-MNIST.
    FashionMnistSample,
    /// MNIST, from --data (a folder of IDX files) or downloaded once.
    Mnist,
    /// Fashion-MNIST, from --data (a folder of IDX files) or downloaded once.
    FashionMnist,
}

/// How an epoch visits the training images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SamplerName {
    /// Each once, in a fresh order.
    #[default]
    Shuffled,
    /// Drawn with replacement, every class alike.
    ClassBalanced,
    /// Drawn with replacement, by the weight of its class.
    Weighted,
}

fn default_max_bad_fraction() -> f64 {
    BadSamplePolicy::default().max_bad_fraction
}

/// What may be said of a run.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct TrainOptions {
    /// Which data set [default: auto].
    #[arg(long, value_enum, help_heading = "Data")]
    pub(crate) dataset: Option<DatasetName>,
    /// The binary folder or .tar.gz of CIFAR-10 or CIFAR-100, a folder of IDX files, a folder or a .tar of
    /// {train,val,test}/CLASS/** or of CLASS/**, or a .csv with the columns path, label and perhaps split.
    #[arg(long, value_name = "PATH", help_heading = "Data")]
    pub(crate) data: Option<PathBuf>,
    /// Where downloads are kept [default: data].
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Train on this many images only, balanced over the classes [default: all].
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub(crate) limit: Option<usize>,
    /// Validate on this share of the training images, drawn class by class, and leave the test split for the end; 0
    /// validates on the val split if there is one, else on the test split [default: 0].
    #[arg(long, value_name = "F", help_heading = "Data")]
    pub(crate) val_fraction: Option<f64>,
    /// How often an epoch visits an image: shuffled (each once), class-balanced (every class alike, drawn with
    /// replacement) or weighted (by --class-weights) [default: shuffled].
    #[arg(long, value_enum, help_heading = "Data")]
    pub(crate) sampler: Option<SamplerName>,
    /// For --sampler weighted: how much a class's images count against others', CLASS=WEIGHT,...; 1 where not named.
    #[arg(long, value_name = "LIST", help_heading = "Data")]
    pub(crate) class_weights: Option<String>,
    /// What happens to an image that is damaged: error, or skip, which drops, logs and counts it [default: error].
    #[arg(long, value_name = "error|skip", help_heading = "Data")]
    pub(crate) on_bad_sample: Option<OnBadSample>,
    /// With --on-bad-sample skip: the share of a split that may be damaged [default: 0.01].
    #[arg(long, value_name = "F", help_heading = "Data")]
    pub(crate) max_bad_fraction: Option<f64>,
    /// Images in a training batch [default: 128].
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub(crate) batch_size: Option<usize>,
    /// Images in an evaluation batch [default: 100].
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub(crate) eval_batch_size: Option<usize>,
    /// Batches made ready ahead of the step [default: 4].
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub(crate) prefetch: Option<usize>,

    /// Channels of the first block; the reference has 64 [default: 64].
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub(crate) width: Option<usize>,
    /// Probability of dropping a hidden unit [default: 0.5].
    #[arg(long, value_name = "P", help_heading = "Model")]
    pub(crate) dropout: Option<f64>,
    /// Classes; must be the data set's, which is what it is when left out.
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub(crate) num_classes: Option<usize>,

    /// Epochs in all [default: 50].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) epochs: Option<usize>,
    /// Adam's learning rate [default: 0.001].
    #[arg(long, value_name = "LR", help_heading = "Training")]
    pub(crate) lr: Option<f64>,
    /// Adam's decay of the gradient's mean [default: 0.9].
    #[arg(long, value_name = "B", help_heading = "Training")]
    pub(crate) beta1: Option<f64>,
    /// Adam's decay of the squared gradient's mean [default: 0.999].
    #[arg(long, value_name = "B", help_heading = "Training")]
    pub(crate) beta2: Option<f64>,
    /// Adam's epsilon [default: 1e-8].
    #[arg(long, value_name = "E", help_heading = "Training")]
    pub(crate) eps: Option<f64>,
    /// Coupled L2, added to the gradient as torch.optim.Adam does [default: 0.0001].
    #[arg(long, value_name = "W", help_heading = "Training")]
    pub(crate) weight_decay: Option<f64>,
    /// ReduceLROnPlateau: what the rate is multiplied by [default: 0.1].
    #[arg(long, value_name = "F", help_heading = "Training")]
    pub(crate) lr_factor: Option<f64>,
    /// ReduceLROnPlateau: epochs without a better validation loss that are borne [default: 3].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) lr_patience: Option<u64>,
    /// ReduceLROnPlateau: the relative improvement that counts [default: 0.0001].
    #[arg(long, value_name = "T", help_heading = "Training")]
    pub(crate) lr_threshold: Option<f64>,
    /// ReduceLROnPlateau: epochs after a reduction that are not counted [default: 0].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) lr_cooldown: Option<u64>,
    /// ReduceLROnPlateau: the lowest rate [default: 0].
    #[arg(long, value_name = "LR", help_heading = "Training")]
    pub(crate) min_lr: Option<f64>,
    /// ReduceLROnPlateau: a smaller reduction is not made [default: 1e-8].
    #[arg(long, value_name = "E", help_heading = "Training")]
    pub(crate) lr_eps: Option<f64>,
    /// Decides the initial weights, the order, the augmentation and the dropout [default: 0].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) seed: Option<u64>,

    /// auto, cpu, cuda or cuda:N [default: auto].
    #[arg(long, help_heading = "Run")]
    pub(crate) device: Option<DeviceChoice>,
    /// CPU threads; 0 for one a core. They change no result [default: 0].
    #[arg(long, value_name = "N", help_heading = "Run")]
    pub(crate) threads: Option<usize>,
    /// The run's folder under --runs-dir [default: the data set, the network and a number].
    #[arg(long, value_name = "NAME", help_heading = "Run")]
    pub(crate) name: Option<String>,
    /// Where runs are kept [default: runs].
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    pub(crate) runs_dir: Option<PathBuf>,
    /// Steps between two lines of the log; 0 for none [default: 100].
    #[arg(long, value_name = "N", help_heading = "Run")]
    pub(crate) log_every: Option<usize>,
    /// Images in predictions.png; 0 for no picture [default: 8].
    #[arg(long, value_name = "N", help_heading = "Run")]
    pub(crate) num_images: Option<usize>,

    // On the command line these five are every command's, and not this struct's.
    /// As --cpu-features.
    #[arg(skip)]
    pub(crate) cpu_features: Option<CpuFeatures>,
    /// As -v: 1 for debug, 2 for trace.
    #[arg(skip)]
    pub(crate) verbose: Option<u8>,
    /// As -q: 1 for warnings, 2 for errors.
    #[arg(skip)]
    pub(crate) quiet: Option<u8>,
    /// As --log-format.
    #[arg(skip)]
    pub(crate) log_format: Option<LogFormat>,
    /// As --trace.
    #[arg(skip)]
    pub(crate) trace: Option<PathBuf>,

    // Lists, which only a file can hold.
    /// The training images' transforms, in torchvision's names and order [default: those of the reference].
    #[arg(skip)]
    pub(crate) train_transforms: Option<Vec<TransformSpec>>,
    /// The validation and test images' transforms [default: those of the reference].
    #[arg(skip)]
    pub(crate) eval_transforms: Option<Vec<TransformSpec>>,
}

/// What a run uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct TrainConfig {
    pub(crate) dataset: DatasetName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<PathBuf>,
    pub(crate) data_dir: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<usize>,
    pub(crate) val_fraction: f64,
    #[serde(default)]
    pub(crate) sampler: SamplerName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) class_weights: Option<String>,
    #[serde(default)]
    pub(crate) on_bad_sample: OnBadSample,
    #[serde(default = "default_max_bad_fraction")]
    pub(crate) max_bad_fraction: f64,
    pub(crate) batch_size: usize,
    pub(crate) eval_batch_size: usize,
    pub(crate) prefetch: usize,
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
    pub(crate) lr_factor: f64,
    pub(crate) lr_patience: u64,
    pub(crate) lr_threshold: f64,
    pub(crate) lr_cooldown: u64,
    pub(crate) min_lr: f64,
    pub(crate) lr_eps: f64,
    pub(crate) seed: u64,
    pub(crate) device: DeviceChoice,
    pub(crate) threads: usize,
    /// Not in files of the first versions.
    #[serde(default)]
    pub(crate) cpu_features: CpuFeatures,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    pub(crate) runs_dir: PathBuf,
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
        Self {
            dataset: DatasetName::Auto,
            data: None,
            data_dir: "data".into(),
            limit: None,
            val_fraction: 0.0,
            sampler: SamplerName::Shuffled,
            class_weights: None,
            on_bad_sample: OnBadSample::Error,
            max_bad_fraction: default_max_bad_fraction(),
            batch_size: 128,
            eval_batch_size: 100,
            prefetch: 4,
            width: 64,
            dropout: 0.5,
            num_classes: None,
            epochs: 50,
            lr: 1e-3,
            beta1: adam.beta1,
            beta2: adam.beta2,
            eps: adam.eps,
            weight_decay: 1e-4,
            lr_factor: plateau.factor,
            lr_patience: plateau.patience,
            lr_threshold: plateau.threshold,
            lr_cooldown: plateau.cooldown,
            min_lr: plateau.min_lr,
            lr_eps: plateau.eps,
            seed: 0,
            device: DeviceChoice::Auto,
            threads: 0,
            cpu_features: CpuFeatures::Auto,
            name: None,
            runs_dir: "runs".into(),
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
const HARMLESS: [&str; 15] = [
    "cpu-features",
    "data",
    "data-dir",
    "dataset",
    "device",
    "epochs",
    "log-every",
    "log-format",
    "num-images",
    "prefetch",
    "quiet",
    "runs-dir",
    "threads",
    "trace",
    "verbose",
];

impl TrainOptions {
    /// Reads a TOML file. An error names the file and the line.
    pub(crate) fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("in the configuration {}", path.display()))
    }

    /// What the command line says of logging, and this file where the command line says nothing.
    pub(crate) fn logging(&self, command_line: &LoggingArgs) -> LoggingArgs {
        let mut logging = command_line.clone();
        if (logging.verbose, logging.quiet) == (0, 0) {
            logging.verbose = self.verbose.unwrap_or(0);
            logging.quiet = self.quiet.unwrap_or(0);
        }
        logging.log_format = logging.log_format.or(self.log_format);
        logging.trace = logging.trace.or_else(|| self.trace.clone());
        logging
    }

    fn table(&self) -> Result<Table> {
        Table::try_from(self).context("the options")
    }
}

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

    /// The configuration of a resumed run: the saved one, with what `options` may change.
    pub(crate) fn resumed(&self, options: &TrainOptions) -> Result<Self> {
        let saved = Table::try_from(self).context("the saved configuration")?;
        let differing: Vec<String> = options
            .table()?
            .iter()
            .filter(|(key, value)| !HARMLESS.contains(&key.as_str()) && saved.get(*key) != Some(value))
            .map(|(key, value)| {
                let was = saved.get(key).map_or("not set".to_owned(), ToString::to_string);
                format!("--{key} is {value} and was {was}")
            })
            .collect();
        if !differing.is_empty() {
            bail!(
                "a resumed run keeps its configuration, but {}; leave these out, or start a new run",
                differing.join(", ")
            );
        }
        self.overlaid(&[options])
    }

    fn check(&self) -> Result<()> {
        let sizes = [
            ("batch-size", self.batch_size),
            ("eval-batch-size", self.eval_batch_size),
            ("prefetch", self.prefetch),
            ("epochs", self.epochs),
            ("width", self.width),
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
        if !(0.0..=1.0).contains(&self.max_bad_fraction) {
            bail!(
                "max-bad-fraction is {}, but must be at least 0 and at most 1",
                self.max_bad_fraction
            );
        }
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
        self.train_transforms.is_some() || self.eval_transforms.is_some()
    }

    /// The optimiser's options.
    pub(crate) fn adam(&self) -> AdamConfig {
        let Self {
            lr,
            beta1,
            beta2,
            eps,
            weight_decay,
            ..
        } = *self;
        AdamConfig {
            lr,
            beta1,
            beta2,
            eps,
            weight_decay,
        }
    }

    /// The scheduler's options.
    pub(crate) fn plateau(&self) -> ReduceLROnPlateauConfig {
        ReduceLROnPlateauConfig {
            factor: self.lr_factor,
            patience: self.lr_patience,
            threshold: self.lr_threshold,
            cooldown: self.lr_cooldown,
            min_lr: self.min_lr,
            eps: self.lr_eps,
            ..ReduceLROnPlateauConfig::default()
        }
    }

    /// The TOML file that gives this configuration again.
    pub(crate) fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self).context("the configuration")
    }
}

#[cfg(test)]
mod tests;
