//! `kestrel train`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use indicatif::MultiProgress;
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::{Dataset, split};
use kestrel_models::Model;
use kestrel_models::weights::ModelInfo;
use kestrel_train::checkpoint::{BEST_FILE, Checkpoint, Checkpointer, Weights};
use kestrel_train::lr_finder::{self, LrFinderConfig};
use kestrel_train::report::{DataRecord, save_lr_plot};
use kestrel_train::{BatchSource, Trainer, Tta};
use serde::{Deserialize, Serialize};

use super::predictions;
use super::scoring::Scoring;
use super::stages::{self, Batches, Run};
use crate::cli::{ReportFormat, TrainArgs};
use crate::config::{OptimizerName, PreprocessingName, TrainConfig, TrainOptions};
use crate::data::{self, EvalImages, Source};
use crate::{device, initial_weights, run_folder};

/// What a checkpoint keeps for this command.
#[derive(Serialize, Deserialize)]
struct Saved {
    config: TrainConfig,
    /// The training images' fingerprint.
    data: String,
}

/// Images of a run, by what they are for.
struct Data {
    train: Arc<dyn Dataset>,
    val: Arc<dyn Dataset>,
    test: Arc<dyn Dataset>,
    /// Whether `val` is `test`.
    val_is_test: bool,
}

/// A run that is continued.
struct Resumed {
    folder: PathBuf,
    checkpoint: Checkpoint,
    saved: Saved,
}

/// Runs `train`, or a command that differs from it in the defaults of `preset`; `file` is what the configuration file says.
pub(crate) fn run(args: &TrainArgs, preset: &TrainOptions, file: &TrainOptions, bars: &MultiProgress) -> Result<()> {
    let span = tracing::info_span!("run");
    let _guard = span.enter();
    let resumed = args.resume.as_deref().map(open_checkpoint).transpose()?;
    // Wrong options are told before anything is opened or fetched.
    let first = match &resumed {
        Some(r) => r.saved.config.resumed(file)?.resumed(&args.options)?,
        None => TrainConfig::from_layers(&[preset, file, &args.options])?,
    };
    first.cpu_features.choose()?;
    device::set_threads(first.threads)?;
    let device = first.device.open()?;
    let place = data::Place {
        path: first.data.as_deref(),
        data_dir: &first.data_dir,
        bad_samples: first.bad_samples(),
        own_transforms: first.own_transforms(),
    };
    let source = data::open(first.dataset, &place, bars)?;
    let config = match &resumed {
        None if source.is_sample() => TrainConfig::from_layers(&[preset, &sample_preset(), file, &args.options])?,
        _ => first,
    };
    let data = split_data(&source, &config)?;
    let saved = Saved {
        config: config.clone(),
        data: data.train.fingerprint()?.to_string(),
    };
    if let Some(r) = &resumed
        && r.saved.data != saved.data
    {
        bail!(
            "the training images are not those of {}: their fingerprint is {} and was {}; name the same data with --data",
            r.folder.display(),
            saved.data,
            r.saved.data
        );
    }

    let loaders = Loaders::new(&data, &config, &device)?;
    let info = model_info(&config, &data, &loaders)?;
    let model: Arc<dyn Model> = info.model.build(config.seed, DType::F32, &device)?.into();
    let num_parameters = model.params().num_parameters();
    let stages = config.stages();
    // Wrong options are told before weights are fetched and a folder is made.
    for stage in stages.iter().rev() {
        stage.prepare(model.as_ref())?;
        stage.config.scheduler(loaders.train.num_batches())?;
    }
    if resumed.is_none() {
        initial_weights::load(model.as_ref(), &info, &config, bars)?;
    }
    if args.find_lr {
        let stage = stages.first().context("a run has a stage")?;
        let images = Batches::images(loaders);
        return find_lr(
            &mut stages::trainer(stage, Arc::clone(&model), &images, &info)?,
            images.train(),
            args,
            &config,
        );
    }
    let folder = match &resumed {
        Some(r) => r.folder.clone(),
        None => run_folder::create(&config, &format!("{}-{}", source.name, info.model.name()))?,
    };
    run_folder::save_config(&folder, &config)?;

    describe(&source, &data, &folder, &device, &info, num_parameters);
    save_data(&data, &loaders, &folder)?;
    if let Some(r) = &resumed {
        let done = r.checkpoint.progress().epoch;
        let epochs = stages.last().map_or(0, |stage| stage.last_epoch);
        tracing::info!(epoch = done, "Resuming after epoch {done} of {epochs}");
    }
    let saved = serde_json::to_value(&saved).context("the configuration")?;
    let mut checkpointer = Checkpointer::new(folder.clone(), info.clone(), saved);
    let run = Run {
        model: &model,
        info: &info,
        stages: &stages,
        resumed: resumed.as_ref().map(|r| &r.checkpoint),
        device: &device,
        bars,
    };
    let progress = run.fit(loaders, &mut checkpointer)?;
    finish(&model, &progress, &data, &config, &folder, &device, bars)
}

/// Prints the learning rate that a range test suggests, and draws its curve.
fn find_lr(trainer: &mut Trainer, loader: &dyn BatchSource, args: &TrainArgs, config: &TrainConfig) -> Result<()> {
    let curve = lr_finder::find_lr(trainer, loader, &LrFinderConfig::default())?;
    save_lr_plot(&curve, &args.find_lr_plot)?;
    tracing::info!("Learning rates: {}", args.find_lr_plot.display());
    let mut out = std::io::stdout().lock();
    match curve.suggestion {
        Some(lr) if config.optimizer == OptimizerName::Muon => writeln!(
            out,
            "Suggested learning rate: {lr:.2e}  (--lr {lr:.2e} --muon-lr {lr:.2e})"
        )?,
        Some(lr) => writeln!(out, "Suggested learning rate: {lr:.2e}  (--lr {lr:.2e})")?,
        None => bail!("the loss never falls at any learning rate; look at the data and at the model"),
    }
    Ok(())
}

/// What is different where the embedded sample is trained on: few epochs, so that the first run ends in minutes.
fn sample_preset() -> TrainOptions {
    TrainOptions {
        epochs: Some(6),
        log_every: Some(10),
        ..TrainOptions::default()
    }
}

fn open_checkpoint(path: &Path) -> Result<Resumed> {
    let file = run_folder::checkpoint_path(path)?;
    let checkpoint = Checkpoint::load(&file)?;
    let saved = serde_json::from_value(checkpoint.config().clone())
        .with_context(|| format!("the configuration in {}", file.display()))?;
    let folder = file.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
    Ok(Resumed {
        folder,
        checkpoint,
        saved,
    })
}

fn split_data(source: &Source, config: &TrainConfig) -> Result<Data> {
    let mut train = Arc::clone(&source.splits.train);
    let mut test = Arc::clone(&source.splits.test);
    let mut val = source.splits.val.as_ref().map_or_else(|| Arc::clone(&test), Arc::clone);
    let mut val_is_test = source.splits.val.is_none();
    if config.val_fraction > 0.0 {
        if source.splits.val.is_some() {
            bail!(
                "the data set has a val split, so val-fraction has nothing to do; leave it out, or remove the folder val"
            );
        }
        let (rest, held_out) = split::split_stratified(&train, config.val_fraction, config.seed)?;
        train = Arc::new(rest);
        val = Arc::new(held_out);
        // Of one whole, the part held back is all that there is to evaluate on.
        val_is_test = source.whole;
        if source.whole {
            test = Arc::clone(&val);
        }
    } else if source.whole {
        bail!(
            "{} is one whole without a test split; hold a part back with --val-fraction, such as 0.2",
            source.name
        );
    }
    if let Some(limit) = config.limit {
        train = Arc::new(split::limit(&train, limit)?);
    }
    Ok(Data {
        train,
        val,
        test,
        val_is_test,
    })
}

pub(super) struct Loaders {
    pub(super) train: DataLoader,
    pub(super) val: DataLoader,
}

impl Loaders {
    fn new(data: &Data, config: &TrainConfig, device: &Device) -> Result<Self> {
        let shuffled = LoaderConfig {
            batch_size: config.batch_size,
            shuffle: true,
            seed: config.seed,
            prefetch: config.prefetch,
            bad_samples: config.bad_samples(),
            ..LoaderConfig::default()
        };
        let augmented = match config.preprocessing {
            PreprocessingName::Cifar => config.train_pipeline(data.train.image(0)?.height())?,
            PreprocessingName::Imagenet => config.train_pipeline(0)?,
        };
        let dataset = Arc::clone(&data.train);
        let train = match data::sampler(dataset.as_ref(), config)? {
            Some(sampler) => DataLoader::with_sampler(dataset, augmented, sampler, shuffled)?,
            None => DataLoader::new(dataset, augmented, shuffled)?,
        }
        .to_device(device);
        let images = EvalImages {
            dataset: Arc::clone(&data.val),
            transforms: config.eval_pipeline()?,
            bad_samples: config.bad_samples(),
        };
        let val = data::eval_loader(images, config.eval_batch_size, config.prefetch)?.to_device(device);
        if train.image_shape() != val.image_shape() {
            bail!(
                "the training images come out as {:?} (channels, height, width), the validation images as {:?}; let \
                 train-transforms and eval-transforms end at one size",
                train.image_shape(),
                val.image_shape()
            );
        }
        Ok(Self { train, val })
    }
}

fn model_info(config: &TrainConfig, data: &Data, loaders: &Loaders) -> Result<ModelInfo> {
    let classes = data.train.classes().to_vec();
    if let Some(asked) = config.num_classes
        && asked != classes.len()
    {
        bail!(
            "num-classes is {asked}, but the data set has {}: {}",
            classes.len(),
            classes.join(", ")
        );
    }
    if classes.len() < 2 {
        bail!(
            "the data set has one class ({}); there is nothing to tell apart: give it at least two",
            classes.join(", ")
        );
    }
    let [_, height, width] = loaders.val.image_shape();
    if height != width {
        bail!("the images are {width}x{height} pixels; the network takes square ones");
    }
    let normalize = loaders
        .val
        .transforms()
        .normalization()
        .context("the evaluation transforms do not normalise")?;
    let transforms = config.eval_specs()?.map(serde_json::to_value).transpose();
    Ok(ModelInfo {
        model: config.network(classes.len(), height),
        classes,
        mean: normalize.mean(),
        std: normalize.std(),
        transforms: transforms.context("the transforms")?,
        temperature: None,
    })
}

fn describe(source: &Source, data: &Data, folder: &Path, device: &Device, info: &ModelInfo, num_parameters: usize) {
    tracing::info!("Device: {}", device::describe(device));
    tracing::info!(
        "Data: {}, {} training and {} test images, {} classes",
        source.name,
        data.train.len(),
        data.test.len(),
        info.classes.len()
    );
    if source.whole {
        tracing::info!(
            "Validation: {} images held back, class by class; they are the test split too, as the data set has none",
            data.val.len()
        );
    } else if data.val_is_test {
        tracing::info!(
            "Validation: the test split, as in the reference program; --val-fraction holds back training images instead"
        );
    } else {
        tracing::info!(
            "Validation: {} images that are neither trained on nor the test split, which is kept for the end",
            data.val.len()
        );
    }
    tracing::info!(
        num_parameters,
        "Model: {}, {num_parameters} parameters",
        info.model.name()
    );
    tracing::info!("Run: {}", folder.display());
}

/// Saves what the report shows of the data.
fn save_data(data: &Data, loaders: &Loaders, folder: &Path) -> Result<()> {
    let mut splits = vec![("training", data.train.as_ref())];
    if !data.val_is_test {
        splits.push(("validation", data.val.as_ref()));
    }
    splits.push(("test", data.test.as_ref()));
    let record = DataRecord::new(&splits).with_augmentations(&loaders.train, loaders.val.transforms());
    Ok(record.context("the images of the report")?.save(folder)?)
}

/// The last word: the best weights on the test split, by class, and a picture.
fn finish(
    model: &Arc<dyn Model>,
    progress: &kestrel_train::Progress,
    data: &Data,
    config: &TrainConfig,
    folder: &Path,
    device: &Device,
    bars: &MultiProgress,
) -> Result<()> {
    let model = model.as_ref();
    let (Some(best), Some(epoch)) = (progress.best_accuracy, progress.best_epoch) else {
        bail!(
            "no epoch was completed, so there are no weights to evaluate; resume {}",
            folder.display()
        );
    };
    tracing::info!(
        "Finished: {} epochs, {} steps; best validation accuracy {:.2}% in epoch {epoch}",
        progress.epoch,
        progress.step,
        100.0 * best
    );
    let path = folder.join(BEST_FILE);
    let weights = Weights::load(&path)?;
    model.params().load_state_dict(&weights.tensors)?;
    let info = &weights.info;
    let images = EvalImages {
        dataset: Arc::clone(&data.test),
        transforms: config.eval_pipeline()?,
        bad_samples: config.bad_samples(),
    };
    let scoring = Scoring {
        model,
        info,
        images: &images,
        split: "test",
        batch_size: config.eval_batch_size,
        tta: Tta::None,
        seed: config.seed,
        device,
        bars,
    };
    let found = scoring.run(ReportFormat::Text)?;
    if config.num_images > 0 {
        let picture = folder.join(run_folder::PREDICTIONS_FILE);
        let count = config.num_images.min(data.test.len());
        predictions::save(model, info, &images, count, config.seed, device, &picture)?;
        tracing::info!("Predictions: {}", picture.display());
    }
    scoring.report(&found, folder)?;
    tracing::info!("Best weights: {}", path.display());
    Ok(())
}
