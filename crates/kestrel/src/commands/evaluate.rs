//! `kestrel evaluate`.

use std::io::{self, Write};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use indicatif::MultiProgress;
use kestrel_data::{BadSamplePolicy, datasets::sample};
use kestrel_models::Model;
use kestrel_models::weights::ModelInfo;
use kestrel_train::checkpoint::Weights;
use kestrel_train::{Evaluation, Tta, evaluate_with};

use super::predictions;
use crate::cli::{EvaluateArgs, Split};
use crate::config::{DatasetName, TrainOptions};
use crate::data::{self, EvalImages};
use crate::{device, progress};

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
    let options = args.config.as_deref().map(TrainOptions::from_file).transpose()?;
    let specs = options.and_then(|options| options.eval_transforms);
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
    let images = EvalImages {
        dataset: Arc::clone(&split),
        transforms: data::eval_transforms(specs.as_deref())?,
        bad_samples,
    };
    let batch_size = args.batch_size as usize;
    let evaluation = with_bar(model.as_ref(), &images, batch_size, args.tta.tta(), &device, bars)?;
    let name = if args.split == Split::Test { "test" } else { "training" };
    print(&evaluation, info, name, split.len())?;
    if let Some(path) = &args.predictions {
        let count = (args.num_images as usize).min(split.len());
        predictions::save(model.as_ref(), info, &images, count, args.seed, &device, path)?;
        tracing::info!("Predictions: {}", path.display());
    }
    Ok(())
}

/// Evaluates with a bar on the terminal.
pub(crate) fn with_bar(
    model: &dyn Model,
    images: &EvalImages,
    batch_size: usize,
    tta: Tta,
    device: &Device,
    bars: &MultiProgress,
) -> Result<Evaluation> {
    let loader = data::eval_loader(images.clone(), batch_size, 2)?.to_device(device);
    let bar = progress::steps(bars, "Evaluation", loader.num_batches() as u64);
    let evaluation = evaluate_with(model, &loader, tta, &mut |done, _| {
        bar.set_position(done as u64);
        Ok(())
    });
    bar.finish_and_clear();
    bars.remove(&bar);
    Ok(evaluation?)
}

/// Prints loss, accuracy, and accuracy by class, of a split of `images` images.
pub(crate) fn print(evaluation: &Evaluation, info: &ModelInfo, split: &str, images: usize) -> Result<()> {
    let mut out = io::stdout().lock();
    let matrix = &evaluation.confusion;
    let seen = matrix.total();
    write!(
        out,
        "Accuracy on the {seen} {split} images: {:.2}%  (loss {:.4})",
        100.0 * evaluation.accuracy(),
        evaluation.loss
    )?;
    match (images as u64).saturating_sub(seen) {
        0 => writeln!(out)?,
        skipped => writeln!(out, "; {skipped} damaged images left out")?,
    }
    let width = info.classes.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (class, name) in info.classes.iter().enumerate() {
        match matrix.class_accuracy(class) {
            Some(accuracy) => {
                let (correct, support) = (matrix.count(class, class), matrix.support(class));
                writeln!(out, "  {name:width$}  {:6.2}%  ({correct}/{support})", 100.0 * accuracy)?;
            }
            None => writeln!(out, "  {name:width$}  no images")?,
        }
    }
    Ok(())
}
