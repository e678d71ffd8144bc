//! What the training loop adds to a step, and how long a checkpoint holds it up.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::{DType, Device};
use kestrel_data::InMemory;
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::transforms::presets;
use kestrel_kernels::random::{KeyedRng, Purpose};
use kestrel_kernels::{cross_entropy, tape};
use kestrel_models::weights::ModelInfo;
use kestrel_models::{CnnConfig, Mode, Model, ModelConfig};
use kestrel_train::checkpoint::{Checkpointer, Every};
use kestrel_train::optim::Optimizer;
use kestrel_train::run_log::{MetricsLog, RunHeader, TensorBoard};
use kestrel_train::{Callback, Progress, StepReport, Trainer, TrainerConfig};

use crate::config::TrainConfig;

const BATCH: usize = 128;
/// Steps of each measurement.
const STEPS: usize = 4;

/// A folder that is removed with this.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("kestrel-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn info() -> Result<ModelInfo> {
    let normalize = presets::cifar_eval()?
        .normalization()
        .context("the preset normalises")?;
    Ok(ModelInfo {
        model: ModelConfig::Cnn(CnnConfig::new(10)),
        classes: (0..10).map(|class| class.to_string()).collect(),
        mean: normalize.mean(),
        std: normalize.std(),
        transforms: None,
        temperature: None,
    })
}

fn loader(device: &Device) -> Result<DataLoader> {
    let n = BATCH * STEPS;
    let mut rng = KeyedRng::new(0, Purpose::Init, 0, 3);
    let pixels = (0..n * 3 * 32 * 32).map(|_| rng.below(256) as u8).collect();
    let labels = (0..n).map(|_| rng.below(10) as u32).collect();
    let images = InMemory::new(pixels, 32, 32, labels, info()?.classes, Path::new("random"))?;
    let config = LoaderConfig {
        batch_size: BATCH,
        shuffle: true,
        ..LoaderConfig::default()
    };
    Ok(DataLoader::new(Arc::new(images), presets::cifar_train(32)?, config)?.to_device(device))
}

fn model(device: &Device) -> Result<(Box<dyn Model>, Box<dyn Optimizer>)> {
    let model = info()?.model.build(0, DType::F32, device)?;
    let optimizer = TrainConfig::default().optimizer(model.as_ref(), 1)?;
    Ok((model, optimizer))
}

fn trainer(device: &Device) -> Result<Trainer> {
    let (model, optimizer) = model(device)?;
    let config = TrainerConfig {
        epochs: 1,
        log_every: 1,
        seed: 0,
    };
    Ok(Trainer::new(model, optimizer, None, config))
}

/// Images a second of forward, backward and update alone, and of the trainer's loop with logs at every step: the same steps
/// on the same batches, by turns.
pub(super) fn overhead(repeats: u64, device: &Device) -> Result<[Vec<f64>; 2]> {
    let loader = loader(device)?;
    let (bare, mut optimizer) = model(device)?;
    let mut step = 0;
    let mut run_bare = || -> Result<Duration> {
        let started = Instant::now();
        for batch in loader.epoch(0) {
            let batch = batch?;
            let logits = bare.forward(&batch.images, Mode::Train { seed: 0, step })?;
            let loss = cross_entropy(&logits, &batch.targets)?;
            optimizer.step(&tape::backward(&loss)?)?;
            loss.to_scalar::<f32>()?;
            step += 1;
        }
        Ok(started.elapsed())
    };
    let folder = Folder::new()?;
    let header = RunHeader {
        name: "bench".into(),
        model: "cnn".into(),
        classes: Vec::new(),
        seed: 0,
        options: String::new(),
    };
    let mut metrics = MetricsLog::open(&folder.0, &header, &Progress::default())?;
    let mut tensorboard = TensorBoard::create(&folder.0, "bench", &Progress::default())?;
    let mut checkpointer = Checkpointer::new(folder.0.clone(), info()?, serde_json::Value::Null)
        .every(Some(Every::Time(Duration::from_secs(3600))));
    let mut trainer = Some(trainer(device)?);
    let mut run_trainer = || -> Result<Duration> {
        let mut at_start = trainer
            .take()
            .context("the trainer")?
            .with_progress(Progress::default());
        let started = Instant::now();
        at_start.train_one_epoch(&loader, &mut [&mut metrics, &mut tensorboard, &mut checkpointer])?;
        let elapsed = started.elapsed();
        trainer = Some(at_start);
        Ok(elapsed)
    };
    let rate = |elapsed: Duration| (BATCH * STEPS) as f64 / elapsed.as_secs_f64();
    run_bare()?;
    run_trainer()?;
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..repeats {
        rates[0].push(rate(run_bare()?));
        rates[1].push(rate(run_trainer()?));
    }
    Ok(rates)
}

/// Milliseconds that the loop waits for a checkpoint of the CNN with Adam, and milliseconds until it is on the disk.
pub(super) fn stall(repeats: u64, device: &Device) -> Result<[Vec<f64>; 2]> {
    let folder = Folder::new()?;
    let mut checkpointer =
        Checkpointer::new(folder.0.clone(), info()?, serde_json::Value::Null).every(Some(Every::Steps(1)));
    let mut trainer = trainer(device)?;
    let _ = checkpointer.on_fit_start(&trainer)?;
    let report = StepReport {
        epoch: 1,
        step: 1,
        num_steps: 1,
        batch_size: BATCH,
        loss: 1.0,
        running_accuracy: 0.0,
        lr: 1e-3,
        grad_norm: Some(1.0),
        skipped: false,
        settled: true,
        mean_loss: None,
    };
    let mut times = [Vec::new(), Vec::new()];
    for step in 1..=repeats + 1 {
        trainer = trainer.with_progress(Progress {
            step,
            ..Progress::default()
        });
        let started = Instant::now();
        let _ = checkpointer.on_step_end(&trainer, &report)?;
        let waited = started.elapsed();
        checkpointer.on_fit_end(&trainer)?;
        if step > 1 {
            times[0].push(1e3 * waited.as_secs_f64());
            times[1].push(1e3 * started.elapsed().as_secs_f64());
        }
    }
    Ok(times)
}
