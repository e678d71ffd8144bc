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
use crate::run_data::{Images, TrainedRun};
use crate::run_folder::{self, RunFolder};
use crate::{device, exit};

/// Runs the command.
pub(crate) fn run(args: &EvaluateArgs, bars: &MultiProgress) -> Result<()> {
    let bad_samples = BadSamplePolicy {
        on_bad_sample: args.on_bad_sample,
        max_bad_fraction: args.max_bad_fraction,
    };
    check_bad_samples(bad_samples).map_err(exit::usage)?;
    device::set_threads(args.threads)?;
    let device = args.device.open()?;
    device::set_precision(args.precision, &device)?;
    let weights = Weights::load(&args.weights)?;
    let info = &weights.info;
    let is_named = args.data.is_some() || args.dataset != DatasetName::Auto;
    let run = trained_run(&args.weights, is_named)?;
    let specs = match &args.config {
        Some(file) => options_of(file).map_err(exit::usage)?.eval_specs()?,
        None => described_transforms(info).with_context(|| format!("in {}", args.weights.display()))?,
    };
    let (dataset, path) = match &run {
        Some(run) if !is_named => (run.config().dataset, run.data()),
        _ => (args.dataset, args.data.clone()),
    };
    let data_dir = match (&args.data_dir, &run) {
        (Some(named), _) => named.clone(),
        (None, Some(run)) if path.is_none() => run.data_dir(),
        _ => PathBuf::from("data"),
    };
    let place = data::Place {
        path: path.as_deref(),
        data_dir: &data_dir,
        bad_samples,
        // The run's images are opened as the run has opened them, or they would look like others.
        own_transforms: specs.is_some() || run.as_ref().is_some_and(|run| run.config().own_transforms()),
    };
    let dataset = match dataset {
        DatasetName::Auto if path.is_none() => named_by(&info.classes).map_err(exit::usage)?,
        named => named,
    };
    let source = data::open(dataset, &place, bars);
    let source = if run.is_some() && !is_named {
        source.context(OF_RUN)?
    } else {
        source?
    };
    let images = match &run {
        None => Images::Others,
        Some(run) if is_named => compare(run, &source)?,
        Some(run) if path == run.config().data => Images::Own,
        Some(run) => match run.compare(&source)? {
            Images::Others => bail!(
                "nothing is left where the data of the run were, and {} here holds other images; say with --data where they are",
                source.name
            ),
            images => images,
        },
    };
    let config = match &run {
        Some(run) if images != Images::Others => run.config(),
        _ => &TrainConfig::default(),
    };
    let (split, name) = choose(args.split, &source, config)?;
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
    model.params().flush_denormal()?;
    tracing::info!("Data: {}", source.name);
    tracing::info!("Device: {}", device::describe(&device));
    let report = if args.no_report {
        None
    } else {
        Some(report_of(args, run.as_ref(), images == Images::Own).map_err(exit::usage)?)
    };
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
    let found = device::in_pool(&device, || scoring.run(args.format))?;
    if let Some(path) = &args.predictions {
        let count = (args.num_images as usize).min(split.len());
        autocast(precision, || {
            predictions::save(model.as_ref(), info, &images, count, args.seed, &device, path)
        })?;
        tracing::info!("Predictions: {}", path.display());
    }
    let Some(report) = report else {
        return Ok(());
    };
    let folder = report.make()?;
    // What a run has written of its data says more than this: its augmentations too.
    if !report.is_the_runs() || DataRecord::load(&folder)?.is_none() {
        DataRecord::new(&[(scoring.split, split.as_ref())]).save(&folder)?;
    }
    scoring
        .report(&found, &folder)
        .context("the report; leave it out with --no-report, or choose another place with --report")
}

/// How the images that were named stand to those of the run that the weights are of, with a word where it decides what is evaluated.
fn compare(run: &TrainedRun, source: &Source) -> Result<Images> {
    let (images, folder) = (run.compare(source)?, run.folder().display());
    match images {
        Images::Unknown => tracing::warn!(
            "{folder} has no checkpoint that tells whether {} holds the run's images: they are split as the run has split its own",
            source.name
        ),
        // Of a copy to which an image was added, all are others.
        Images::Others if source.whole && run.config().val_fraction > 0.0 => tracing::warn!(
            "{} does not hold the images of {folder}, or not them alone: all of it is evaluated, also what the run may have \
             trained on",
            source.name
        ),
        _ => {}
    }
    Ok(images)
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
fn folder_of_run(weights: &Path) -> Option<&Path> {
    let folder = CheckpointFolder::run_of(weights).or_else(|| weights.parent())?;
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    is_run(folder).then_some(folder)
}

fn is_run(folder: &Path) -> bool {
    folder.join(run_folder::CONFIG_FILE).is_file()
}

/// The run that a weight file lies in, if it does.
fn trained_run(weights: &Path, is_named: bool) -> Result<Option<TrainedRun>> {
    let Some(folder) = folder_of_run(weights) else {
        return Ok(None);
    };
    match options_of(&folder.join(run_folder::CONFIG_FILE)) {
        Ok(config) => Ok(Some(TrainedRun::new(folder, config))),
        // It may be of another program.
        Err(error) if is_named => {
            tracing::warn!("{error:#}; what the run held back of its images is not known, and all are evaluated");
            Ok(None)
        }
        Err(error) => Err(error).context(OF_RUN),
    }
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

/// Where a report goes.
enum ReportFolder {
    /// The folder of the run that the weights are of.
    Run(PathBuf),
    /// Another.
    Named(PathBuf),
    /// A new one of this stem.
    New(String),
}

/// Where the report goes: as asked, else to the run that the weights are of, where the images are `own` to it, else to a new folder:
/// a run's results are of its own images.
fn report_of(args: &EvaluateArgs, run: Option<&TrainedRun>, own: bool) -> Result<ReportFolder> {
    let of_run = run.map(TrainedRun::folder).filter(|_| own);
    let real = |folder: &Path| folder.canonicalize().ok();
    match (&args.report, of_run) {
        (Some(folder), Some(run)) if real(folder) == real(run) => Ok(ReportFolder::Run(folder.clone())),
        (Some(folder), _) if is_run(folder) => bail!(
            "{} has the results of a run, and these are of other weights or images; choose another folder with --report",
            folder.display()
        ),
        (Some(folder), _) => Ok(ReportFolder::Named(folder.clone())),
        (None, Some(run)) => Ok(ReportFolder::Run(run.to_owned())),
        (None, None) => {
            let run = run.and_then(|run| run.folder().canonicalize().ok());
            let name = run.as_deref().and_then(Path::file_name).or(args.weights.file_stem());
            Ok(ReportFolder::New(
                name.unwrap_or_default().to_string_lossy().into_owned(),
            ))
        }
    }
}

impl ReportFolder {
    fn is_the_runs(&self) -> bool {
        matches!(self, Self::Run(_))
    }

    /// The folder, which is there.
    fn make(&self) -> Result<PathBuf> {
        match self {
            Self::Run(folder) => Ok(folder.clone()),
            Self::Named(folder) => {
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("cannot make the folder {}", folder.display()))?;
                Ok(folder.clone())
            }
            Self::New(stem) => {
                let folder = RunFolder::create(&TrainConfig::default(), &format!("{stem}-evaluation"))?;
                Ok(folder.path().to_owned())
            }
        }
    }
}
