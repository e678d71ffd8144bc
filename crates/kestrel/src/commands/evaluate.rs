//! `kestrel evaluate`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use candle_core::DType;
use indicatif::MultiProgress;
use kestrel_data::datasets::{cifar10, cifar100, sample};
use kestrel_data::transforms::{Compose, presets};
use kestrel_data::{BadSamplePolicy, Dataset};
use kestrel_kernels::autocast::autocast;
use kestrel_train::checkpoint::{CheckpointFolder, Weights};
use kestrel_train::predictor::described_transforms;
use kestrel_train::report::DataRecord;

use super::predictions;
use super::scoring::Scoring;
use crate::cli::{EvaluateArgs, Split};
use crate::config::{DatasetName, TrainConfig, TrainOptions, check_bad_samples};
use crate::data::{self, Data, EvalImages, Source};
use crate::run_folder::{self, RunFolder};
use crate::{device, exit};

/// Runs the command.
pub(crate) fn run(args: &EvaluateArgs, bars: &MultiProgress) -> Result<()> {
    device::set_threads(args.threads)?;
    let bad_samples = BadSamplePolicy {
        on_bad_sample: args.on_bad_sample,
        max_bad_fraction: args.max_bad_fraction,
    };
    check_bad_samples(bad_samples).map_err(exit::usage)?;
    let device = args.device.open()?;
    let weights = Weights::load(&args.weights)?;
    device::set_precision(args.precision, &device)?;
    let info = &weights.info;
    let run = if args.data.is_none() && args.dataset == DatasetName::Auto {
        run_config(&args.weights)?
    } else {
        None
    };
    let specs = match &args.config {
        Some(file) => options_of(file).map_err(exit::usage)?.eval_specs()?,
        None => described_transforms(info).with_context(|| format!("in {}", args.weights.display()))?,
    };
    let (dataset, path) = match &run {
        Some(run) => (run.dataset, run.data.as_deref()),
        None => (args.dataset, args.data.as_deref()),
    };
    let kept = run.as_ref().map(|run| run.data_dir.as_path());
    let place = data::Place {
        path,
        data_dir: args.data_dir.as_deref().or(kept).unwrap_or(Path::new("data")),
        bad_samples,
        own_transforms: specs.is_some(),
    };
    let dataset = match dataset {
        DatasetName::Auto if path.is_none() => named_by(&info.classes).map_err(exit::usage)?,
        named => named,
    };
    let source = data::open(dataset, &place, bars);
    let (source, run) = match run {
        Some(run) => (source.context(OF_RUN)?, run),
        None => (source?, TrainConfig::default()),
    };
    let (split, name) = choose(args.split, &source, &run)?;
    if split.classes() != info.classes {
        bail!(
            "the weights in {} tell apart {}, but the data set has {}; name the data set they were trained on with --data \
             or --dataset",
            args.weights.display(),
            info.classes.join(", "),
            split.classes().join(", ")
        );
    }
    let model = info.model.build(0, DType::F32, &device)?;
    model
        .params()
        .load_state_dict(&weights.tensors)
        .with_context(|| format!("loading {}", args.weights.display()))?;
    tracing::info!("Data: {}", source.name);
    tracing::info!("Device: {}", device::describe(&device));
    device::set_precision(args.precision, &device)?;
    let images = EvalImages {
        dataset: Arc::clone(&split),
        transforms: match &specs {
            Some(specs) => Compose::from_specs(specs)?,
            None => presets::cifar_eval()?,
        },
        bad_samples,
    };
    let precision = args.precision.into();
    let scoring = Scoring {
        model: model.as_ref(),
        info,
        images: &images,
        split: name,
        batch_size: args.batch_size as usize,
        tta: args.tta.tta(),
        precision,
        seed: args.seed,
        device: &device,
        bars,
    };
    let found = scoring.run(args.format)?;
    if let Some(path) = &args.predictions {
        let count = (args.num_images as usize).min(split.len());
        autocast(precision, || {
            predictions::save(model.as_ref(), info, &images, count, args.seed, &device, path)
        })?;
        tracing::info!("Predictions: {}", path.display());
    }
    if args.no_report {
        return Ok(());
    }
    let folder = report_folder(args)?;
    if DataRecord::load(&folder)?.is_none() {
        DataRecord::new(&[(scoring.split, split.as_ref())]).save(&folder)?;
    }
    scoring
        .report(&found, &folder)
        .context("the report; leave it out with --no-report, or choose another place with --report")
}

/// The images of a split, and its name.
fn choose(split: Split, source: &Source, run: &TrainConfig) -> Result<(Arc<dyn Dataset>, &'static str)> {
    // Of one whole, a run has held a part back; without the run, all of it is evaluated.
    let data = if source.whole && run.val_fraction == 0.0 {
        let all = || Arc::clone(&source.splits.test);
        Data {
            train: all(),
            val: all(),
            test: all(),
            val_is_test: true,
        }
    } else {
        Data::split(source, run)?
    };
    match split {
        Split::Test => Ok((data.test, "test")),
        Split::Train => Ok((data.train, "train")),
        Split::Val if data.val_is_test && !source.whole => bail!(
            "{} has no validation images of its own: a run on it validates on its test images, which --split test evaluates",
            source.name
        ),
        Split::Val => Ok((data.val, "val")),
    }
}

/// A configuration file by itself.
fn options_of(file: &Path) -> Result<TrainConfig> {
    TrainConfig::from_layers(&[&TrainOptions::from_file(file)?])
}

/// What an error of opening the run's own data says first.
const OF_RUN: &str =
    "the data of the run, which the config.toml beside the weights names; choose other with --data or --dataset";

/// The folder of the run that a weight file lies in, if it is one.
fn run_of(weights: &Path) -> Option<&Path> {
    let folder = CheckpointFolder::run_of(weights).or_else(|| weights.parent())?;
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    folder.join(run_folder::CONFIG_FILE).is_file().then_some(folder)
}

/// The configuration of that run.
fn run_config(weights: &Path) -> Result<Option<TrainConfig>> {
    let Some(folder) = run_of(weights) else {
        return Ok(None);
    };
    options_of(&folder.join(run_folder::CONFIG_FILE))
        .map(Some)
        .context(OF_RUN)
}

/// The data set that has these classes.
fn named_by(classes: &[String]) -> Result<DatasetName> {
    let known = [
        (&cifar10::CLASSES[..], DatasetName::Cifar10),
        (&cifar100::CLASSES[..], DatasetName::Cifar100),
        (&sample::CLASSES[..], DatasetName::FashionMnistSample),
    ];
    match known.into_iter().find(|(names, _)| classes == *names) {
        Some((_, name)) => Ok(name),
        None => bail!(
            "the weights tell apart {}, and there is no config.toml of their run beside them; name their data set with --data \
             or --dataset",
            classes.join(", ")
        ),
    }
}

/// Where the report goes: as asked, else the folder of the run that the weights are of, else a new one.
fn report_folder(args: &EvaluateArgs) -> Result<PathBuf> {
    if let Some(folder) = &args.report {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        return Ok(folder.clone());
    }
    if let Some(folder) = run_of(&args.weights) {
        return Ok(folder.to_owned());
    }
    let stem = args.weights.file_stem().unwrap_or_default().to_string_lossy();
    let folder = RunFolder::create(&TrainConfig::default(), &format!("{stem}-evaluation"))?;
    Ok(folder.path().to_owned())
}
