//! `kestrel evaluate`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use candle_core::DType;
use indicatif::MultiProgress;
use kestrel_data::transforms::{Compose, presets};
use kestrel_data::{BadSamplePolicy, datasets::sample};
use kestrel_kernels::autocast::autocast;
use kestrel_train::checkpoint::Weights;
use kestrel_train::predictor::described_transforms;
use kestrel_train::report::DataRecord;

use super::predictions;
use super::scoring::Scoring;
use crate::cli::{EvaluateArgs, Split};
use crate::config::{DatasetName, TrainConfig, TrainOptions};
use crate::data::{self, EvalImages};
use crate::device;
use crate::run_folder::{self, RunFolder};

/// Runs the command.
pub(crate) fn run(args: &EvaluateArgs, bars: &MultiProgress) -> Result<()> {
    device::set_threads(args.threads)?;
    let device = args.device.open()?;
    let weights = Weights::load(&args.weights)?;
    let info = &weights.info;
    // Weights that were trained on the embedded sample are evaluated on it, without asking the network for CIFAR-10.
    let dataset = match args.dataset {
        DatasetName::Auto if args.data.is_none() && info.classes == sample::CLASSES => DatasetName::FashionMnistSample,
        named => named,
    };
    let specs = match &args.config {
        Some(file) => TrainConfig::from_layers(&[&TrainOptions::from_file(file)?])?.eval_specs()?,
        None => described_transforms(info).with_context(|| format!("in {}", args.weights.display()))?,
    };
    let bad_samples = BadSamplePolicy {
        on_bad_sample: args.on_bad_sample,
        max_bad_fraction: args.max_bad_fraction,
    };
    let place = data::Place {
        path: args.data.as_deref(),
        data_dir: &args.data_dir,
        bad_samples,
        own_transforms: specs.is_some(),
    };
    let source = data::open(dataset, &place, bars)?;
    let split = match args.split {
        Split::Test => source.splits.test,
        Split::Train => source.splits.train,
    };
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
    tracing::info!("Device: {}", device::describe(&device));
    device::say_precision(args.precision.into(), &device);
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
        split: if args.split == Split::Test { "test" } else { "training" },
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

/// Where the report goes: as asked, else the folder of the run that the weights are of, else a new one.
fn report_folder(args: &EvaluateArgs) -> Result<PathBuf> {
    if let Some(folder) = &args.report {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        return Ok(folder.clone());
    }
    let beside = args.weights.parent().filter(|folder| !folder.as_os_str().is_empty());
    let beside = beside.unwrap_or(Path::new("."));
    if beside.join(run_folder::CONFIG_FILE).is_file() {
        return Ok(beside.to_owned());
    }
    let stem = args.weights.file_stem().unwrap_or_default().to_string_lossy();
    let folder = RunFolder::create(&TrainConfig::default(), &format!("{stem}-evaluation"))?;
    Ok(folder.path().to_owned())
}
