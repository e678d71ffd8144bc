//! The arguments.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kestrel_data::{BadSamplePolicy, OnBadSample};
use serde::{Deserialize, Serialize};

use crate::config::{DatasetName, ModelName, PrecisionName, StemName, TrainOptions};
use crate::device::{CpuFeatures, DeviceChoice};
use crate::methods::TtaName;

/// Train, evaluate and look at image classifiers.
#[derive(Debug, Parser)]
#[command(name = "kestrel", version, about, max_term_width = 110, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// The instruction set of the CPU's kernels; another one changes results by rounding [default: auto].
    #[arg(long, value_enum, value_name = "SET", global = true)]
    pub(crate) cpu_features: Option<CpuFeatures>,
    #[command(flatten)]
    pub(crate) logging: LoggingArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 the work failed (the reason is on stderr), 2 the arguments are wrong, or name a run \
that exists or is in use, 130 and 143 a run stopped by SIGINT or SIGTERM, with a checkpoint.
Results go to stdout, everything else to stderr.";

const TRAIN_EXAMPLES: &str = "Examples:
  kestrel train                                   CIFAR-10 (downloaded once), or the embedded sample without network
  kestrel train --data ~/cifar-10-batches-bin     the official binary folder, or its .tar.gz
  kestrel train --data pictures --epochs 20       a folder of train/<class>/* and test/<class>/*
  kestrel train --data pictures.tar               the same in an archive, which stays packed
  kestrel train --data table.csv --val-fraction 0.2
  kestrel train --config runs/cifar10-cnn-1/config.toml --seed 1
  kestrel train --optimizer sgd --nesterov --lr 0.1 --scheduler cosine --warmup 5 --ema 0.999
  kestrel train --find-lr                         where the loss falls most as the rate rises
  kestrel train --resume runs/cifar10-cnn-1       go on from its newest checkpoint
  kestrel train --resume auto --name night        go on with runs/night, or begin it

A run writes to runs/<name>/: config.toml (every option but --name), best.safetensors (the weights of the best
epoch), checkpoints/ (all that --resume needs), metrics.jsonl, metrics.csv and TensorBoard's event files,
throughput.jsonl, environment.json, predictions.png, report.html with its figures/*.png. Ctrl-C saves the run
and ends it; a second one ends it at once.";

const FINETUNE_EXAMPLES: &str = "Examples:
  kestrel finetune-resnet --pretrained imagenet --data pictures
                                                  torchvision's weights (downloaded once), a new last layer
  kestrel finetune-resnet --weights resnet18-f37072fd.pth --data pictures --unfreeze layer4
                                                  then 5 epochs in which layer4 is trained too
  kestrel finetune-resnet --pretrained imagenet --data pictures --freeze none --layer-lr-decay 0.5 --lr 1e-4
                                                  all of it from the start, slower towards the input
  kestrel finetune-resnet --weights runs/cifar10-resnet18-1/best.safetensors --stem cifar --image-size 32 --data pictures

While only the last layer is trained, its inputs are computed once, kept under data/features, and an epoch takes seconds.
A run writes what `train` writes; `kestrel export` turns its weights into a file for torchvision.";

const EVALUATE_EXAMPLES: &str = "Examples:
  kestrel evaluate --weights runs/cifar10-cnn-1/best.safetensors
  kestrel evaluate --weights best.safetensors --data pictures --predictions grid.png --num-images 16
  kestrel evaluate --weights runs/cifar10-cnn-1/best.safetensors --format json | jq .per_class

Writes report.html, evaluation.json and figures/*.png into the run's folder, or where --report says.";

const PREDICT_EXAMPLES: &str = "Examples:
  kestrel predict --weights runs/cifar10-cnn-1/best.safetensors cat.jpg
  kestrel predict --weights best.safetensors --top-k 5 pictures 'more/**/*.png'
  kestrel predict --weights best.safetensors --format csv pictures > predictions.csv
  find . -name '*.jpg' | kestrel predict --weights best.safetensors -
  curl -s https://example.org/cat.jpg | kestrel predict --weights best.safetensors -

An image that cannot be read or decoded is named on stderr, the others are predicted, and the exit code is 1.";

const REPORT_EXAMPLES: &str = "Examples:
  kestrel report runs/cifar10-cnn-1               report.html and figures/*.png in that folder, from what is in it
  kestrel report runs/*                           runs/comparison.html: curves over each other, results, differing options

The path of the page goes to stdout. A page needs no network, and opens from the disk.";

const SERVE_EXAMPLES: &str = "Examples:
  kestrel serve --weights runs/cifar10-cnn-1/best.safetensors     the page; its address goes to stdout
  curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:7879/predict
  curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' 'http://127.0.0.1:7879/predict?top=3&cam=top'
  kestrel serve --weights best.safetensors --host 0.0.0.0         for the network: no password, no encryption

POST /predict takes the bytes of an image file, of type image/* or application/octet-stream. ?top=N asks for the N likeliest
classes (5), ?cam=CLASS or ?cam=top for a heatmap of the evidence for a class. GET /model names the classes. Answers are JSON;
where something is wrong, with a sentence as `error`: 400 not a picture, 408 too slow, 413 too large, 415 another type,
503 busy, to be tried again. Ctrl-C ends it after what is asked already, with exit code 0.";

const INSPECT_EXAMPLES: &str = "Examples:
  kestrel data inspect pictures                  a folder of train/<class>/* and test/<class>/*, or of <class>/*
  kestrel data inspect table.csv --format json

Ends with exit code 1 if an image is broken. Each image is read and decoded once.";

const EXPORT_EXAMPLES: &str = "Examples:
  kestrel export --weights runs/cifar10-cnn-1/best.safetensors --out cnn.safetensors     for PyTorch
  kestrel export --weights runs/cifar10-cnn-1/best.safetensors --out cnn.onnx            for onnxruntime and others
After the file it prints the few lines of Python that load it.";

const SUMMARY_EXAMPLES: &str = "Examples:
  kestrel model summary --model resnet18
  kestrel model summary --model resnet18 --stem cifar --image-size 32 --num-classes 10
  kestrel model summary --weights runs/cifar10-cnn-1/best.safetensors --format json";

const DOCTOR_EXAMPLES: &str = "Examples:
  kestrel doctor
  kestrel doctor --format json | jq .cuda.gpus

That something is missing is no failure.";

const COMPLETIONS_EXAMPLES: &str = "Examples:
  kestrel completions bash > ~/.local/share/bash-completion/completions/kestrel
  kestrel completions zsh > ~/.zfunc/_kestrel        (a folder of $fpath)
  kestrel completions fish > ~/.config/fish/completions/kestrel.fish";

const BENCH_CASES: &str = "Each case prints one line: CASE  VARIANT  RATE img/s  (median of N).
  cnn-train   one training step of the CNN with Adam, batch 128
  cnn-eval    one evaluation pass of the CNN, batch 100
  whitened-cnn-train  one training step of the cifar-94 recipe's network, batch 1,024
  resnet-head a training step of ResNet-18's last layer, the others frozen, 224 pixels, batch 32
  resnet-head-cached
              epochs of the same last layer on features of 1,024 images that are kept, batch 32
  resnet-full one training step of all of ResNet-18 with Adam, 224 pixels, batch 16
  load-cifar  10,000 images in memory: flip, crop, normalise, batches of 128
  engine-overhead     forward, backward and update of the CNN alone, and in the trainer's loop
  checkpoint-stall    how long a checkpoint of the CNN holds the loop up, and until it is on the disk
  load-folder photographs of --folder DIR: RandomResizedCrop(224), flip, normalise, batches of 64";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a classifier, validate after each epoch, keep the best.
    #[command(after_help = TRAIN_EXAMPLES)]
    Train(Box<TrainArgs>),
    /// Fine-tune a pretrained ResNet: `train` with the options of transfer learning.
    #[command(after_help = FINETUNE_EXAMPLES)]
    FinetuneResnet(Box<TrainArgs>),
    /// Loss, accuracy, calibration and scores by class of saved weights, with a report; optionally a picture of predictions.
    #[command(after_help = EVALUATE_EXAMPLES)]
    Evaluate(EvaluateArgs),
    /// What saved weights say of your own images: the likeliest classes with their probabilities.
    #[command(after_help = PREDICT_EXAMPLES)]
    Predict(PredictArgs),
    /// Write a run's report again, or a page that compares several runs.
    #[command(after_help = REPORT_EXAMPLES)]
    Report(ReportArgs),
    /// Serve a run's report to this machine's browser while the run goes on.
    Watch(WatchArgs),
    /// Serve saved weights to this machine: a page on which pictures are dropped, and POST /predict for programs.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Write weights for other programs: safetensors under PyTorch's names, or ONNX.
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Look into networks.
    Model(ModelArgs),
    /// Look into data sets.
    Data(DataArgs),
    /// What there is to work with: processor, memory, GPUs and their software; what is missing, and what to do next.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
    /// Measure speed.
    #[command(after_help = BENCH_CASES)]
    Bench(BenchArgs),
    /// Print a script that lets a shell complete commands and options.
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
}

/// Arguments of `train`.
#[derive(Args, Debug)]
pub(crate) struct TrainArgs {
    /// A TOML file that may hold the options of this list under the same names, but for --resume, --allow-code-change, --find-lr
    /// and --find-lr-plot; and the images' transforms, which docs/guide.md lists. The command line wins.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Continue a run: its folder, or a file of its checkpoints; or auto: the run of --name, else the one that was saved last,
    /// from its newest valid checkpoint, or a new run where there is none.
    #[arg(long, value_name = "PATH|auto")]
    pub(crate) resume: Option<PathBuf>,
    /// With --resume: go on though the program is of another commit than the run was; its numbers may then change.
    #[arg(long, requires = "resume")]
    pub(crate) allow_code_change: bool,
    /// Train nothing: raise the learning rate over 100 steps, print the rate at which the loss falls most, draw the curve.
    #[arg(long, conflicts_with = "resume")]
    pub(crate) find_lr: bool,
    /// Where --find-lr draws.
    #[arg(long, value_name = "FILE", default_value = "lr.png", requires = "find_lr")]
    pub(crate) find_lr_plot: PathBuf,
    #[command(flatten)]
    pub(crate) options: TrainOptions,
}

/// Arguments of `evaluate`.
#[derive(Args, Debug)]
pub(crate) struct EvaluateArgs {
    /// Weights that Kestrel wrote: best.safetensors or a checkpoint.
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: PathBuf,
    /// The config.toml of the run, for its eval-transforms; without it, those of the weights, else the reference's.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Which data set; auto is what --data holds, else what the weights were trained on, as the config.toml of their run or else
    /// their classes say.
    #[arg(long, value_enum, default_value_t = DatasetName::Auto)]
    pub(crate) dataset: DatasetName,
    /// Where the data set is: see `train --help`.
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Where downloads are kept [default: where the run of the weights has them, else data].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Which split.
    #[arg(long, value_enum, default_value_t = Split::Test)]
    pub(crate) split: Split,
    /// What happens to an image that is damaged: error, or skip, which drops, logs and counts it.
    #[arg(long, value_name = "error|skip", default_value_t = OnBadSample::Error)]
    pub(crate) on_bad_sample: OnBadSample,
    /// With --on-bad-sample skip: the share of the split that may be damaged.
    #[arg(long, value_name = "F", default_value_t = BadSamplePolicy::default().max_bad_fraction)]
    pub(crate) max_bad_fraction: f64,
    /// Images in a batch.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) batch_size: u64,
    /// Average the answers over views of each image.
    #[arg(long, value_enum, default_value_t = TtaName::None)]
    pub(crate) tta: TtaName,
    /// A table for people, or one JSON object: loss, top1, top5, ece, temperature, scores by class, confusion, reliability.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) format: ReportFormat,
    /// The folder for report.html, evaluation.json and figures [default: that of the weights' run where the images are the run's
    /// own, else a new one under runs].
    #[arg(long, value_name = "DIR", conflicts_with = "no_report")]
    pub(crate) report: Option<PathBuf>,
    /// Write no report.
    #[arg(long)]
    pub(crate) no_report: bool,
    /// Write a PNG of predictions here.
    #[arg(long, value_name = "FILE")]
    pub(crate) predictions: Option<PathBuf>,
    /// Images in that picture.
    #[arg(long, value_name = "N", default_value_t = 8, requires = "predictions", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) num_images: u64,
    /// Which images: another seed, other images.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// In what convolutions and linear layers are computed: f32, tf32 (a GPU's convolutions), bf16 or f16.
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = PrecisionName::F32, hide_possible_values = true)]
    pub(crate) precision: PrecisionName,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// CPU threads; 0 for one a core. They change no result.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
}

/// Arguments of `predict`.
#[derive(Args, Debug)]
pub(crate) struct PredictArgs {
    /// Weights that Kestrel wrote: best.safetensors or a checkpoint. They hold all that is needed: network, classes,
    /// preprocessing, temperature.
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: PathBuf,
    /// Image files; folders, for every image in them and below; patterns with *, ? and **; and - for standard input: an image,
    /// or a list of these names, one a line.
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Classes that are named of each image, the likeliest first.
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) top_k: u64,
    /// A table for people; a JSON array with an object a line; or CSV with a line for each image and rank.
    #[arg(long, value_enum, default_value_t = PredictFormat::Text)]
    pub(crate) format: PredictFormat,
    /// Images in a batch.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) batch_size: u64,
    /// In what convolutions and linear layers are computed: f32, tf32 (a GPU's convolutions), bf16 or f16.
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = PrecisionName::F32, hide_possible_values = true)]
    pub(crate) precision: PrecisionName,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// CPU threads; 0 for one a core. They change no result.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
}

/// The form of predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PredictFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
    /// For spreadsheets.
    Csv,
}

/// Arguments of `report`.
#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// Folders of runs.
    #[arg(value_name = "RUN", required = true)]
    pub(crate) runs: Vec<PathBuf>,
    /// With several runs: the page to write [default: comparison.html beside the first run's folder].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// Arguments of `watch`.
#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// The run's folder.
    #[arg(value_name = "RUN")]
    pub(crate) run: PathBuf,
    /// The port on this machine; 0 for any that is free.
    #[arg(long, value_name = "N", default_value_t = 7878)]
    pub(crate) port: u16,
}

/// Arguments of `serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Weights that Kestrel wrote: best.safetensors or a checkpoint.
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: PathBuf,
    /// The address to listen at; another than the loopback lets the network in, without a password.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub(crate) host: IpAddr,
    /// The name under which a proxy before this server is reached, such as box.example or box.example:8443: pages from there
    /// may ask too.
    #[arg(long, value_name = "HOST")]
    pub(crate) public_host: Option<String>,
    /// The port; 0 for any that is free.
    #[arg(long, value_name = "N", default_value_t = 7879)]
    pub(crate) port: u16,
    /// The largest file that is taken, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4095))]
    pub(crate) max_body: u32,
    /// The largest picture that is decoded, in millions of pixels.
    #[arg(long, value_name = "MP", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=178))]
    pub(crate) max_pixels: u32,
    /// Pictures that are worked on or wait at once; one more is told 503 and may come again.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) concurrency: u32,
    /// How long a client may take to send a picture (the head of its request: 5 at most), and the server to answer it.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) timeout: u32,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub(crate) device: DeviceChoice,
    /// CPU threads; 0 for one a core. They change no result.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
}

/// Arguments of `export`.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// Weights that Kestrel wrote: best.safetensors or a checkpoint.
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: PathBuf,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// What to write [default: what the file's name ends in, .safetensors or .onnx].
    #[arg(long, value_enum)]
    pub(crate) format: Option<ExportFormat>,
}

/// A format of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// Tensors under PyTorch's names, for load_state_dict.
    Safetensors,
    /// The network with its weights, opset 20, any batch; classes and preprocessing in the metadata.
    Onnx,
}

/// Arguments of `model`.
#[derive(Args, Debug)]
pub(crate) struct ModelArgs {
    #[command(subcommand)]
    pub(crate) command: ModelCommand,
}

/// What to do with a network.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Its layers: name, type, output shape, parameters, multiply-accumulates.
    #[command(after_help = SUMMARY_EXAMPLES)]
    Summary(SummaryArgs),
}

/// Arguments of `model summary`.
#[derive(Args, Debug)]
pub(crate) struct SummaryArgs {
    /// The network of these weights, which Kestrel wrote.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "stem", "width", "num_classes"])]
    pub(crate) weights: Option<PathBuf>,
    /// The network [default: cnn].
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) model: Option<ModelName>,
    /// How a residual network begins [default: imagenet].
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) stem: Option<StemName>,
    /// CNN: channels of the first block [default: 64].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) width: Option<u32>,
    /// Classes [default: 10; 1000 for images of 224 pixels].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) num_classes: Option<u32>,
    /// Side of the images in pixels [default: that of the weights; 224 for the stem imagenet, else 32].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) image_size: Option<u32>,
    /// A table for people, or one JSON object.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) format: ReportFormat,
}

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Lines for people, or one JSON object.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) format: ReportFormat,
}

/// Arguments of `completions`.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// A split of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Split {
    /// The images held back for the end.
    Test,
    /// The images validated on after each epoch.
    #[value(alias = "validation")]
    Val,
    /// The images trained on.
    #[value(alias = "training")]
    Train,
}

/// Arguments of `data`.
#[derive(Args, Debug)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

/// What to do with a data set.
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Classes, counts, formats, sizes, mean and std, and every broken, duplicate or suspicious image.
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(InspectArgs),
}

/// Arguments of `data inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// What `train --data` takes: a folder, an archive or a table of images.
    pub(crate) path: PathBuf,
    /// A table for people, or one JSON object.
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) format: ReportFormat,
}

/// The form of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// Arguments of `bench`.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// The cases; all of them when none is named.
    #[arg(value_enum)]
    pub(crate) cases: Vec<BenchCase>,
    /// A folder of class folders with photographs, for load-folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    /// Times each case is measured, after one warm-up; the median is printed.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) repeats: u64,
    /// Images of a batch of cnn-train and resnet-full; those of the published comparisons if it is not given: 128 and 16.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) batch_size: Option<u64>,
    /// Steps of cnn-train and resnet-full in each measurement, the loss read back after the last.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) steps: u64,
    /// f32, tf32 (a GPU's convolutions), bf16 or f16: the precision of cnn-train and resnet-full.
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = PrecisionName::F32, hide_possible_values = true)]
    pub(crate) precision: PrecisionName,
    /// CPU threads; 0 for one a core.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub(crate) device: DeviceChoice,
}

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchCase {
    /// A training step.
    CnnTrain,
    /// An evaluation pass.
    CnnEval,
    /// A training step of the whitened CNN.
    WhitenedCnnTrain,
    /// A training step of ResNet-18's last layer.
    ResnetHead,
    /// Epochs of ResNet-18's last layer on features that are kept.
    ResnetHeadCached,
    /// A training step of ResNet-18.
    ResnetFull,
    /// The loader, from memory.
    LoadCifar,
    /// The training loop against a bare step.
    EngineOverhead,
    /// A checkpoint.
    CheckpointStall,
    /// The loader, from files.
    LoadFolder,
}

/// How much is said, and in which form.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Logging")]
pub(crate) struct LoggingArgs {
    /// Say more: -v debug, -vv trace.
    #[arg(short, long, action = clap::ArgAction::Count, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Say less: -q warnings and errors, -qq errors. RUST_LOG, where set, decides instead of both.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) quiet: u8,
    /// Lines for people, or one JSON object a line [default: text].
    #[arg(long, value_enum, global = true)]
    pub(crate) log_format: Option<LogFormat>,
    /// Write a timeline for a trace viewer (chrome://tracing, ui.perfetto.dev) here.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) trace: Option<PathBuf>,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}
