//! `kestrel train`.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use indicatif::MultiProgress;
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_kernels::autocast::autocast;
use kestrel_models::Model;
use kestrel_models::weights::ModelInfo;
use kestrel_train::checkpoint::{BEST_FILE, Weights};
use kestrel_train::lr_finder::{self, LrFinderConfig};
use kestrel_train::report::{DataRecord, save_lr_plot, write_report};
use kestrel_train::{BatchSource, Trainer, Tta};

use super::image_size;
use super::listeners::{Ending, Listeners, Stop};
use super::predictions;
use super::scoring::Scoring;
use super::stages::{self, Batches, Run};
use crate::cli::{ReportFormat, TrainArgs};
use crate::config::{DatasetName, OptimizerName, PreprocessingName, TrainConfig, TrainOptions};
use crate::data::{self, Data, EvalImages, Source};
use crate::run_data::{self, Saved};
use crate::run_folder::{self, Found, RunFolder};
use crate::{device, environment, exit, initial_weights, pretrained};

/// What `--resume` takes in a path's place: the newest checkpoint, or a new run where there is none.
const AUTO: &str = "auto";

/// A run that is continued.
struct Resumed {
    found: Found,
    saved: Saved,
}

/// Runs `train`, or a command that differs from it in the defaults of `preset`; `file` is what the configuration file says.
pub(crate) fn run(args: &TrainArgs, preset: &TrainOptions, file: &TrainOptions, bars: &MultiProgress) -> Result<()> {
    let span = tracing::info_span!("run");
    let _guard = span.enter();
    let started = Instant::now();
    let asked = || TrainConfig::from_layers(&[preset, file, &args.options]).map_err(exit::usage);
    let (folder, resumed) = match args.resume.as_deref() {
        None => (None, None),
        Some(path) if path == Path::new(AUTO) => run_folder::newest(&asked()?)?,
        Some(path) => {
            stays_in_place(path, &args.options).map_err(exit::usage)?;
            run_folder::open(path).map(|(folder, found)| (Some(folder), Some(found)))?
        }
    };
    let resumed = resumed.map(Resumed::read).transpose()?;
    // Wrong options are told before anything is opened or fetched.
    let first = match &resumed {
        Some(r) => r
            .go_on(&[file, &args.options], args.allow_code_change)
            .map_err(exit::usage)?,
        None => asked()?,
    };
    if resumed.is_none() {
        require_possible(&first, folder.is_none() && !args.find_lr).map_err(exit::usage)?;
    }
    first.cpu_features.choose().map_err(exit::usage)?;
    device::set_threads(first.threads)?;
    let device = first.device.open()?;
    device::set_precision(first.precision, &device)?;
    let is_named = file.data.is_some() || args.options.data.is_some();
    let (mut data_path, mut data_dir) = (first.data.clone(), first.data_dir.clone());
    if let Some(folder) = &folder {
        let (found, found_dir) = run_data::places(folder.path(), &first);
        if !is_named {
            data_path = found;
        }
        if file.data_dir.is_none() && args.options.data_dir.is_none() {
            data_dir = found_dir;
        }
    }
    let place = data::Place {
        path: data_path.as_deref(),
        data_dir: &data_dir,
        bad_samples: first.bad_samples(),
        own_transforms: first.own_transforms(),
    };
    let source = data::open(first.dataset, &place, bars);
    let source = if resumed.is_some() && data_path.is_some() && !is_named {
        source.context("the data of the run; say with --data where they are now")?
    } else {
        source?
    };
    let mut config = match &resumed {
        None if source.is_sample => TrainConfig::from_layers(&[preset, &sample_preset(), file, &args.options])?,
        _ => first,
    };
    if resumed.is_none() && (config.dataset, &config.data) == (DatasetName::Auto, &None) {
        // What was taken is what the run goes on with, also where a network comes or goes.
        config.dataset = if source.is_sample {
            DatasetName::FashionMnistSample
        } else {
            DatasetName::Cifar10
        };
    }
    let data = Data::split(&source, &config)?;
    let saved = Saved::new(&config, &data, environment::commit())?;
    config.data_dir = data_dir;
    if let Some(r) = &resumed {
        r.require_data(&saved)?;
    }

    image_size::check_pictures(&source.name, data.train.as_ref(), &config)?;
    let loaders = Loaders::new(&data, &config, &device)?;
    let info = model_info(&config, &data, &loaders)?;
    let model: Arc<dyn Model> = info.model.build(config.seed, DType::F32, &device)?.into();
    let num_parameters = model.params().num_parameters();
    let stages = config.stages();
    // Wrong options are told before weights are fetched and a folder is made.
    for stage in stages.iter().rev() {
        stage.prepare(model.as_ref()).map_err(exit::usage)?;
        stage.config.scheduler(loaders.train.num_batches())?;
        stage.config.freezing(model.as_ref()).map_err(exit::usage)?;
    }
    if resumed.is_none() && !initial_weights::load(model.as_ref(), &info, &config, bars)? {
        initial_weights::from_images(model.as_ref(), &data.train, &config, &device)?;
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
    let folder = match folder {
        Some(folder) => folder,
        None => RunFolder::create(&config, &format!("{}-{}", source.name, info.model.name()))?,
    };
    let path = folder.path();
    folder.prepare(resumed.as_ref().map(|r| &r.found.checkpoint))?;
    // By their whole path, downloads are found from any folder, as the data are.
    let found_anywhere = TrainConfig {
        data_dir: run_folder::whole(&config.data_dir),
        ..config.clone()
    };
    run_folder::save_config(path, &found_anywhere, data_path.as_deref())?;
    environment::save(path, &device, config.seed)?;

    describe(&source, &data, &config, path, &device, &info, num_parameters);
    save_data(&data, &loaders, path)?;
    if let Some(r) = &resumed {
        r.say(stages.last().map_or(0, |stage| stage.last_epoch));
    }
    let saved = serde_json::to_value(&saved).context("the configuration")?;
    let before = resumed.as_ref().map(|r| r.found.checkpoint.progress().clone());
    let mut listeners = Listeners::new(path, &config, &info, &saved, &before.unwrap_or_default(), started)?;
    let run = Run {
        model: &model,
        info: &info,
        stages: &stages,
        folder: path,
        resumed: resumed.as_ref().map(|r| &r.found.checkpoint),
        device: &device,
        bars,
    };
    let (progress, ending) = device::in_pool(&device, || run.fit(loaders, &mut listeners))?;
    match ending {
        Ending::Complete => device::in_pool(&device, || {
            finish(&model, &progress, &data, &config, path, &device, bars)
        }),
        Ending::Stopped(Stop::Signal(exit)) => Err(exit.into()),
        Ending::Stopped(Stop::MaxTime) => {
            let (step, folder) = (progress.step, path.display());
            // Nothing is evaluated yet; there are curves to look at.
            write_report(path)?;
            tracing::info!("Stopped by --max-time after step {step}; go on with --resume {folder}");
            Ok(())
        }
    }
}

/// Fails where a new run cannot be what its options say, whatever the data are; `is_named` where it makes a folder of its name.
fn require_possible(config: &TrainConfig, is_named: bool) -> Result<()> {
    if is_named {
        run_folder::require_free_name(config)?;
    }
    if config.pretrained.is_some() {
        // A name is the same whatever the images are.
        pretrained::mirrors_of(config.network(1, 0).name())?;
    }
    Ok(())
}

/// Fails where a run that is named by its path would be told to be another's.
fn stays_in_place(path: &Path, options: &TrainOptions) -> Result<()> {
    let asked = [
        ("name", options.name.is_some()),
        ("runs-dir", options.runs_dir.is_some()),
    ];
    if let Some((option, _)) = asked.into_iter().find(|(_, is_given)| *is_given) {
        bail!(
            "--{option} is for a new run, or for --resume auto; the run of {} goes on where it is",
            path.display()
        );
    }
    Ok(())
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

impl Resumed {
    fn read(found: Found) -> Result<Self> {
        let saved = Saved::read(&found.checkpoint, &found.path)?;
        Ok(Self { found, saved })
    }

    /// The run's configuration, with what the layers may change. Its place stays what it is.
    fn go_on(&self, layers: &[&TrainOptions], allow_code_change: bool) -> Result<TrainConfig> {
        let saved = &self.saved.config;
        Ok(TrainConfig {
            name: saved.name.clone(),
            runs_dir: saved.runs_dir.clone(),
            ..saved.resumed(layers, self.changed_code(allow_code_change))?
        })
    }

    /// What of the program is not what it was, and not allowed to be.
    fn changed_code(&self, allowed: bool) -> Vec<String> {
        let (was, is) = (self.found.checkpoint.version(), env!("CARGO_PKG_VERSION"));
        if was != is {
            return vec![format!("the program is version {is} and was {was}")];
        }
        if let (Some(was), Some(is)) = (&self.saved.commit, environment::commit())
            && *was != is
        {
            let difference = format!("the program is of commit {is} and was of {was}");
            if !allowed {
                return vec![format!("{difference} (--allow-code-change goes on with it)")];
            }
            tracing::warn!("{difference}; if its numbers changed, so will the run's");
        }
        Vec::new()
    }

    /// Fails unless the images are those of the checkpoint.
    fn require_data(&self, now: &Saved) -> Result<()> {
        let sets = [
            ("training", &now.data, &self.saved.data),
            ("validation", &now.validation, &self.saved.validation),
        ];
        let differing = sets.iter().filter(|(_, is, was)| is != was);
        let differing: Vec<String> = differing
            .map(|(which, is, was)| format!("the {which} images' fingerprint is {is} and was {was}"))
            .collect();
        if differing.is_empty() {
            return Ok(());
        }
        bail!(
            "the images are not those of {}: {}; name the same data with --data, with every file as it was",
            self.found.path.display(),
            differing.join(", ")
        )
    }

    /// Says from where the run goes on.
    fn say(&self, epochs: usize) {
        let progress = self.found.checkpoint.progress();
        let (done, step) = (progress.epoch, progress.step);
        let within = match progress.position {
            None => String::new(),
            Some(position) if position.trained => ", before validation".to_owned(),
            Some(position) => format!(", batch {} of the next", position.next_batch),
        };
        let path = self.found.path.display();
        tracing::info!(
            epoch = done,
            step,
            "Resuming {path}: after epoch {done} of {epochs}{within}, step {step}"
        );
    }
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
        };
        let train = data::on_device(train, "training", device)?;
        let images = EvalImages {
            dataset: Arc::clone(&data.val),
            transforms: config.eval_pipeline()?,
            bad_samples: config.bad_samples(),
        };
        let val = data::eval_loader(images, config.eval_batch_size, config.prefetch)?;
        let val = data::on_device(val, "validation", device)?;
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
    image_size::check_transformed(height, width, config)?;
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

fn describe(
    source: &Source,
    data: &Data,
    config: &TrainConfig,
    folder: &Path,
    device: &Device,
    info: &ModelInfo,
    num_parameters: usize,
) {
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
    let epochs = config.stages().last().map_or(0, |stage| stage.last_epoch);
    if let Some(start) = config.swa_start.filter(|start| *start > epochs) {
        tracing::warn!(
            "swa-start is {start}, and the run has {epochs} epochs: no weights are averaged until it is gone on with"
        );
    }
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
        if progress.epoch == 0 {
            bail!(
                "no epoch was completed, so there are no weights to evaluate; resume {}",
                folder.display()
            );
        }
        bail!(
            "no epoch's validation loss is a finite number, so no weights were kept as the best; look at the curves of {}, and \
             begin a new run with a lower learning rate",
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
    let precision = config.precision.into();
    let scoring = Scoring {
        model,
        info,
        images: &images,
        split: "test",
        batch_size: config.eval_batch_size,
        tta: Tta::None,
        precision,
        seed: config.seed,
        device,
        bars,
    };
    let found = scoring.run(ReportFormat::Text)?;
    if config.num_images > 0 {
        let picture = folder.join(run_folder::PREDICTIONS_FILE);
        let count = config.num_images.min(data.test.len());
        autocast(precision, || {
            predictions::save(model, info, &images, count, config.seed, device, &picture)
        })?;
        tracing::info!("Predictions: {}", picture.display());
    }
    scoring.report(&found, folder)?;
    tracing::info!("Best weights: {}", path.display());
    Ok(())
}
