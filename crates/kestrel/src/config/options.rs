//! What may be said of a training run, on the command line or in a TOML file, under the same names.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use kestrel_data::OnBadSample;
use kestrel_data::transforms::TransformSpec;
use serde::{Deserialize, Serialize};
use toml::Table;

use super::{
    AnnealName, CheckpointEvery, DatasetName, LossName, LrInterval, ModelName, OptimizerName, PrecisionName,
    PreprocessingName, PretrainedName, SamplerName, SchedulerName, StemName, TimeSpan, WatchedName, file_names,
};
use crate::cli::{LogFormat, LoggingArgs};
use crate::device::{CpuFeatures, DeviceChoice};

/// What may be said of a run.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct TrainOptions {
    /// Which data set; auto is what --data holds, else CIFAR-10, or the embedded sample where that cannot be had [default: auto].
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
    /// Images in a training batch; finetune-resnet: 32 [default: 128].
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub(crate) batch_size: Option<usize>,
    /// Images in an evaluation batch; finetune-resnet: 32 [default: 100].
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub(crate) eval_batch_size: Option<usize>,
    /// Batches made ready ahead of the step [default: 4].
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub(crate) prefetch: Option<usize>,

    /// The transforms where a file names none: cifar (flip and padded crop) or imagenet (RandomResizedCrop and flip; Resize
    /// and CenterCrop); finetune-resnet: imagenet [default: cifar].
    #[arg(long, value_enum, value_name = "NAME", help_heading = "Data")]
    pub(crate) preprocessing: Option<PreprocessingName>,
    /// Side of the images that the network sees, in pixels, with --preprocessing imagenet [default: ImageNet's 224].
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub(crate) image_size: Option<usize>,
    /// Change training images at random; false trains on what is evaluated on [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Data")]
    pub(crate) augment: Option<bool>,

    /// The network; finetune-resnet: resnet18 [default: cnn].
    #[arg(long, value_enum, value_name = "NAME", help_heading = "Model")]
    pub(crate) model: Option<ModelName>,
    /// How a residual network begins: imagenet (torchvision's) or cifar, for small images [default: imagenet].
    #[arg(long, value_enum, value_name = "NAME", help_heading = "Model")]
    pub(crate) stem: Option<StemName>,
    /// Begin with these weights: torch's .pth, safetensors (torchvision's or timm's names), a file of Kestrel's, or an
    /// https address of one whose name ends in a dash and the first digits of its sha256 [default: random].
    #[arg(long, value_name = "PATH|URL", help_heading = "Model")]
    pub(crate) weights: Option<String>,
    /// Begin with published weights, downloaded once and checked: imagenet, for resnet18 and resnet50. The environment
    /// variable KESTREL_PRETRAINED_MIRRORS names a TOML file of other addresses (docs/guide.md).
    #[arg(long, value_enum, value_name = "NAME", help_heading = "Model")]
    pub(crate) pretrained: Option<PretrainedName>,
    /// cnn, whitened-cnn: channels of the first block; the reference has 64 [default: 64].
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub(crate) width: Option<usize>,
    /// cnn: probability of dropping a hidden unit [default: 0.5].
    #[arg(long, value_name = "P", help_heading = "Model")]
    pub(crate) dropout: Option<f64>,
    /// Classes; must be the data set's, which is what it is when left out.
    #[arg(long, value_name = "N", help_heading = "Model")]
    pub(crate) num_classes: Option<usize>,

    /// Epochs, of the first stage where --unfreeze begins a second; finetune-resnet: 10; train on
    /// the embedded sample: 6 [default: 50].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) epochs: Option<usize>,
    /// The optimiser [default: adam].
    #[arg(long, value_enum, help_heading = "Training")]
    pub(crate) optimizer: Option<OptimizerName>,
    /// Learning rate; the highest one of one-cycle [default: 0.001].
    #[arg(long, value_name = "LR", help_heading = "Training")]
    pub(crate) lr: Option<f64>,
    /// Adam and Lion: decay of the gradient's mean [default: 0.9].
    #[arg(long, value_name = "B", help_heading = "Training")]
    pub(crate) beta1: Option<f64>,
    /// Adam: decay of the squared gradient's mean; Lion: of the momentum [default: 0.999].
    #[arg(long, value_name = "B", help_heading = "Training")]
    pub(crate) beta2: Option<f64>,
    /// Adam's and RMSprop's epsilon [default: 1e-8].
    #[arg(long, value_name = "E", help_heading = "Training")]
    pub(crate) eps: Option<f64>,
    /// Weight decay: coupled L2, added to the gradient as torch.optim.Adam does; decoupled for adamw, lion and muon;
    /// finetune-resnet: 0 [default: 0.0001].
    #[arg(long, value_name = "W", help_heading = "Training")]
    pub(crate) weight_decay: Option<f64>,
    /// No weight decay on biases and on the weights of norms [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Training")]
    pub(crate) no_decay_norm_bias: Option<bool>,
    /// The learning rate of batch norms' biases, as a multiple of --lr; their weight decay is divided by it, so that they decay
    /// as fast as the others [default: 1].
    #[arg(long, value_name = "F", help_heading = "Training")]
    pub(crate) norm_bias_lr_factor: Option<f64>,
    /// SGD, RMSprop and Muon: share of the momentum that is kept [default: 0.9].
    #[arg(long, value_name = "M", help_heading = "Training")]
    pub(crate) momentum: Option<f64>,
    /// SGD: share of the gradient that does not enter the momentum [default: 0].
    #[arg(long, value_name = "D", help_heading = "Training")]
    pub(crate) dampening: Option<f64>,
    /// SGD: look ahead along the momentum [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Training")]
    pub(crate) nesterov: Option<bool>,
    /// RMSprop: decay of the squared gradient's mean [default: 0.99].
    #[arg(long, value_name = "A", help_heading = "Training")]
    pub(crate) alpha: Option<f64>,
    /// RMSprop: divide by the standard deviation [default: false].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Training")]
    pub(crate) centered: Option<bool>,
    /// Muon: the learning rate of the convolution weights; AdamW moves the rest at --lr [default: 0.02].
    #[arg(long, value_name = "LR", help_heading = "Training")]
    pub(crate) muon_lr: Option<f64>,
    /// Lookahead around the optimiser: steps between two of the slow weights, with which batch norms' statistics go; 0 for none
    /// [default: 0].
    #[arg(long, value_name = "K", help_heading = "Training")]
    pub(crate) lookahead: Option<u64>,
    /// Lookahead: how far the slow weights go towards the fast ones [default: 0.5].
    #[arg(long, value_name = "A", help_heading = "Training")]
    pub(crate) lookahead_alpha: Option<f64>,
    /// Lookahead: let alpha come down from 1 over the run, by this power of the share that is done; 0 for the same alpha all
    /// along [default: 0].
    #[arg(long, value_name = "P", help_heading = "Training")]
    pub(crate) lookahead_power: Option<f64>,
    /// What the learning rate does [default: plateau].
    #[arg(long, value_enum, help_heading = "Training")]
    pub(crate) scheduler: Option<SchedulerName>,
    /// What step, multi-step, cosine, cosine-restarts and one-cycle count [default: epoch].
    #[arg(long, value_enum, value_name = "WHAT", help_heading = "Training")]
    pub(crate) lr_interval: Option<LrInterval>,
    /// step: epochs (or steps) between two reductions [default: 30].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) lr_step_size: Option<u64>,
    /// multi-step: when the rate is reduced, as 30,60 [default: none].
    #[arg(long, value_name = "N,...", value_delimiter = ',', help_heading = "Training")]
    pub(crate) milestones: Option<Vec<u64>>,
    /// cosine: length of the half wave; cosine-restarts: of the first cycle; one-cycle: of the cycle
    /// [default: the whole run after the warm-up].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) t_max: Option<u64>,
    /// cosine-restarts: how much longer each cycle is than the last [default: 1].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) t_mult: Option<u64>,
    /// one-cycle: the share of the run in which the rate rises [default: 0.3].
    #[arg(long, value_name = "F", help_heading = "Training")]
    pub(crate) pct_start: Option<f64>,
    /// one-cycle: the curve up and down [default: cos].
    #[arg(long, value_enum, value_name = "CURVE", help_heading = "Training")]
    pub(crate) anneal_strategy: Option<AnnealName>,
    /// one-cycle: the highest rate over the first [default: 25].
    #[arg(long, value_name = "F", help_heading = "Training")]
    pub(crate) div_factor: Option<f64>,
    /// one-cycle: the first rate over the last [default: 10000].
    #[arg(long, value_name = "F", help_heading = "Training")]
    pub(crate) final_div_factor: Option<f64>,
    /// Linear warm-up before the scheduler, in epochs (or steps, with --warmup-interval step); 0 for none [default: 0].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) warmup: Option<u64>,
    /// What the warm-up counts [default: epoch].
    #[arg(long, value_enum, value_name = "WHAT", help_heading = "Training")]
    pub(crate) warmup_interval: Option<LrInterval>,
    /// The share of the rate that the warm-up begins with [default: 0.1].
    #[arg(long, value_name = "F", help_heading = "Training")]
    pub(crate) warmup_factor: Option<f64>,
    /// The loss [default: cross-entropy].
    #[arg(long, value_enum, help_heading = "Training")]
    pub(crate) loss: Option<LossName>,
    /// Focal loss: how much less a right answer counts [default: 2].
    #[arg(long, value_name = "G", help_heading = "Training")]
    pub(crate) focal_gamma: Option<f64>,
    /// Cross-entropy: share of each target that is spread over all classes [default: 0].
    #[arg(long, value_name = "E", help_heading = "Training")]
    pub(crate) label_smoothing: Option<f64>,
    /// How much a class's images weigh in the loss, CLASS=WEIGHT,...; 1 where not named [default: 1 for all].
    #[arg(long, value_name = "LIST", help_heading = "Training")]
    pub(crate) loss_class_weights: Option<String>,
    /// Scale the gradients down to this norm [default: none].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) clip_grad_norm: Option<f64>,
    /// Cut each gradient to this absolute value [default: none].
    #[arg(long, value_name = "V", help_heading = "Training")]
    pub(crate) clip_grad_value: Option<f64>,
    /// In what convolutions and linear layers are computed: f32, tf32 (a GPU's convolutions), bf16 or f16; weights and optimiser stay f32
    /// [default: f32].
    #[arg(
        long,
        value_enum,
        value_name = "TYPE",
        hide_possible_values = true,
        help_heading = "Training"
    )]
    pub(crate) precision: Option<PrecisionName>,
    /// f16: what the loss is multiplied by at first, so that small gradients do not vanish; it then adapts [default: 65536].
    #[arg(long, value_name = "F", help_heading = "Training")]
    pub(crate) loss_scale: Option<f64>,
    /// f16: steps without an overflow after which the loss's scale doubles [default: 2000].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) loss_scale_interval: Option<u64>,
    /// Batches whose gradients make one step of the optimiser [default: 1].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) accumulate: Option<usize>,
    /// Validate and save an exponential moving average of the weights with this decay [default: none].
    #[arg(long, value_name = "D", help_heading = "Training")]
    pub(crate) ema: Option<f64>,
    /// Validate and save the mean of the weights after each epoch from this one on (SWA) [default: none].
    #[arg(long, value_name = "EPOCH", help_heading = "Training")]
    pub(crate) swa_start: Option<usize>,
    /// plateau, step, multi-step: what the rate is multiplied by [default: 0.1].
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
    /// plateau and cosine: the lowest rate [default: 0].
    #[arg(long, value_name = "LR", help_heading = "Training")]
    pub(crate) min_lr: Option<f64>,
    /// ReduceLROnPlateau: a smaller reduction is not made [default: 1e-8].
    #[arg(long, value_name = "E", help_heading = "Training")]
    pub(crate) lr_eps: Option<f64>,
    /// What is not trained: none, backbone (all but the last layer), or a layer group and all before it; finetune-resnet:
    /// backbone [default: none].
    #[arg(long, value_name = "none|backbone|GROUP", help_heading = "Transfer")]
    pub(crate) freeze: Option<String>,
    /// Freeze modules after so many epochs, MODULE=EPOCHS,...: a layer group, a layer or one parameter [default: none].
    #[arg(long, value_name = "LIST", help_heading = "Transfer")]
    pub(crate) freeze_after: Option<String>,
    /// Then a second stage, in which more is trained: all, or a layer group and all after it [default: no second stage].
    #[arg(long, value_name = "all|GROUP", help_heading = "Transfer")]
    pub(crate) unfreeze: Option<String>,
    /// Epochs of the second stage [default: 5].
    #[arg(long, value_name = "N", help_heading = "Transfer")]
    pub(crate) unfreeze_epochs: Option<usize>,
    /// Learning rate of the second stage [default: 0.0001].
    #[arg(long, value_name = "LR", help_heading = "Transfer")]
    pub(crate) unfreeze_lr: Option<f64>,
    /// Discriminative learning rates: each layer group's is the next one's, nearer the output, times this [default: 1].
    #[arg(long, value_name = "F", help_heading = "Transfer")]
    pub(crate) layer_lr_decay: Option<f64>,
    /// While only the last layer is trained, compute its inputs once, for this many augmented views of each training image,
    /// and keep them under --data-dir; 0 for none [default: 4, or 1 without augmentation].
    #[arg(long, value_name = "K", help_heading = "Transfer")]
    pub(crate) cache_views: Option<usize>,

    /// End the run after this many epochs in a row without a better --early-stopping-metric [default: all epochs].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(crate) early_stopping_patience: Option<usize>,
    /// What early stopping watches [default: val-accuracy].
    #[arg(long, value_enum, value_name = "WHAT", help_heading = "Training")]
    pub(crate) early_stopping_metric: Option<WatchedName>,
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
    /// Save the run within an epoch too: every so many steps (500) or so much time (10m, 1h); 0 for never [default: 10m].
    #[arg(long, value_name = "N|TIME", help_heading = "Run")]
    pub(crate) checkpoint_every: Option<CheckpointEvery>,
    /// Checkpoints that are kept, beside that of the best epoch; 0 for all [default: 2].
    #[arg(long, value_name = "N", help_heading = "Run")]
    pub(crate) keep_last: Option<usize>,
    /// End after this time (90s, 2h, 1h30m) with a checkpoint, to be gone on with by --resume [default: no limit].
    #[arg(long, value_name = "TIME", help_heading = "Run")]
    pub(crate) max_time: Option<TimeSpan>,
    /// Steps between two lines of the log; 0 for none; train on the embedded sample: 10 [default: 100].
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

impl TrainOptions {
    /// Reads a TOML file. An error names the file and the line.
    pub(crate) fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        let options = file_names::check(&text).and_then(|()| Ok(toml::from_str(&text)?));
        options.with_context(|| format!("in the configuration {}", path.display()))
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

    pub(super) fn table(&self) -> Result<Table> {
        for (option, path) in [
            ("data", &self.data),
            ("data-dir", &self.data_dir),
            ("runs-dir", &self.runs_dir),
            ("trace", &self.trace),
        ] {
            if let Some(path) = path.as_deref().filter(|path| path.to_str().is_none()) {
                bail!(
                    "{option} is {}, which is not UTF-8 and could not be saved with the run; give it another name",
                    path.display()
                );
            }
        }
        if let Some(seed) = self.seed.filter(|seed| i64::try_from(*seed).is_err()) {
            bail!("seed is {seed}, but must be at most {}", i64::MAX);
        }
        Table::try_from(self).context("the options")
    }
}
