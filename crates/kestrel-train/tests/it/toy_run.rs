//! A small run, and what tests of runs have in common: stopping it, going on with it, and comparing what it left.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Tensor};
use kestrel_data::InMemory;
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::transforms::presets;
use kestrel_kernels::random::{KeyedRng, Purpose};
use kestrel_kernels::update::{AdamConfig, LionConfig, MuonConfig, RmsPropConfig, SgdConfig};
use kestrel_models::weights::ModelInfo;
use kestrel_models::{CnnConfig, ModelConfig};
use kestrel_train::checkpoint::{BEST_FILE, CheckpointFolder, Checkpointer};
use kestrel_train::loss::{CrossEntropyLoss, Loss, Targets};
use kestrel_train::lr_scheduler::{
    CosineAnnealingLr, CosineAnnealingWarmRestarts, Interval, LinearWarmup, LinearWarmupConfig, MultiStepLr,
    OneCycleLr, ReduceLROnPlateau, ReduceLROnPlateauConfig, Scheduled,
};
use kestrel_train::optim::{
    Adam, Combined, Lion, Lookahead, LookaheadConfig, Muon, ParamGroup, RmsProp, Sgd, no_decay_on_biases_and_norms,
};
use kestrel_train::run_log::{MetricsCsv, MetricsLog, RunHeader};
use kestrel_train::{
    AverageKind, BatchSource, Callback, Control, GradClip, StepReport, Trainer, TrainerConfig, WeightAverage,
};

pub(crate) fn info(width: usize) -> ModelInfo {
    let cnn = CnnConfig {
        width,
        ..CnnConfig::new(3)
    };
    let normalize = presets::cifar_eval().unwrap().normalization().unwrap();
    let classes = ["a", "b", "c"].map(String::from).to_vec();
    ModelInfo {
        model: ModelConfig::Cnn(cnn),
        classes,
        mean: normalize.mean(),
        std: normalize.std(),
        transforms: None,
        temperature: None,
    }
}

pub(crate) fn dataset(seed: u64, n: usize) -> Arc<InMemory> {
    let mut rng = KeyedRng::new(seed, Purpose::Init, 0, 0);
    let labels: Vec<u32> = (0..n as u32).map(|i| i % 3).collect();
    // Each class is brighter than the last, so there is something to learn.
    let pixels = labels
        .iter()
        .flat_map(|l| vec![*l; 32 * 32 * 3])
        .map(|l| (l * 60 + rng.next_u32() % 80) as u8)
        .collect();
    let classes = ["a", "b", "c"].map(String::from).to_vec();
    Arc::new(InMemory::new(pixels, 32, 32, labels, classes, Path::new("made")).unwrap())
}

pub(crate) fn loader(seed: u64, n: usize, train: bool) -> DataLoader {
    let transforms = if train {
        presets::cifar_train(32)
    } else {
        presets::cifar_eval()
    };
    let config = LoaderConfig {
        batch_size: 8,
        shuffle: train,
        seed: 5,
        ..LoaderConfig::default()
    };
    DataLoader::new(dataset(seed, n), transforms.unwrap(), config).unwrap()
}

pub(crate) fn trainer(epochs: usize, lr: f64) -> Trainer {
    let model = info(2).model.build(5, DType::F32, &Device::Cpu).unwrap();
    let config = AdamConfig {
        lr,
        weight_decay: 1e-4,
        ..AdamConfig::default()
    };
    let adam = Adam::new(model.params().trainable(), config).unwrap();
    // No patience, so that the scheduler's state matters within few epochs.
    let plateau = ReduceLROnPlateauConfig {
        patience: 0,
        threshold: 0.5,
        ..ReduceLROnPlateauConfig::default()
    };
    let plateau = ReduceLROnPlateau::new(plateau).unwrap();
    Trainer::new(
        model,
        Box::new(adam),
        Some(Box::new(plateau)),
        TrainerConfig {
            epochs,
            log_every: 0,
            seed: 5,
        },
    )
}

/// A run with methods that all have a state of their own.
pub(crate) fn other(which: usize) -> Trainer {
    let model = info(2).model.build(5, DType::F32, &Device::Cpu).unwrap();
    let params = model.params().trainable();
    let config = TrainerConfig {
        epochs: 5,
        log_every: 0,
        seed: 5,
    };
    let adamw = |params| {
        let config = AdamConfig {
            weight_decay: 0.01,
            decoupled: true,
            ..AdamConfig::default()
        };
        let (decayed, others) = no_decay_on_biases_and_norms(params);
        let group = |params, weight_decay| ParamGroup {
            params,
            config: AdamConfig { weight_decay, ..config },
        };
        Adam::with_groups(vec![group(decayed, 0.01), group(others, 0.0)]).unwrap()
    };
    match which {
        0 => {
            let sgd = SgdConfig {
                lr: 0.05,
                momentum: 0.9,
                nesterov: true,
                ..SgdConfig::default()
            };
            let lookahead = LookaheadConfig {
                k: 3,
                ..LookaheadConfig::default()
            };
            let sgd = Lookahead::new(Box::new(Sgd::new(params, sgd).unwrap()), lookahead).unwrap();
            let cycle = Scheduled::new(OneCycleLr::new(20), Interval::Step);
            Trainer::new(model, Box::new(sgd), Some(Box::new(cycle)), config)
                .with_average(WeightAverage::new(AverageKind::Ema { decay: 0.8 }).unwrap())
        }
        1 => {
            let (convs, rest) = Muon::split(params);
            let muon = Muon::new(convs, MuonConfig::default()).unwrap();
            let combined = Combined::new(vec![Box::new(muon), Box::new(adamw(rest))]).unwrap();
            let cosine = Scheduled::new(CosineAnnealingLr::new(4, 0.0).unwrap(), Interval::Epoch);
            let warmup = LinearWarmupConfig {
                total: 3,
                interval: Interval::Step,
                start_factor: 0.1,
            };
            let warmup = LinearWarmup::new(warmup, Some(Box::new(cosine))).unwrap();
            Trainer::new(model, Box::new(combined), Some(Box::new(warmup)), config)
                .with_average(WeightAverage::new(AverageKind::Swa { start_epoch: 2 }).unwrap())
        }
        2 => {
            let rmsprop = RmsPropConfig {
                momentum: 0.9,
                centered: true,
                lr: 1e-3,
                ..RmsPropConfig::default()
            };
            let rmsprop = RmsProp::new(params, rmsprop).unwrap();
            let restarts = CosineAnnealingWarmRestarts::new(3, 2, 0.0).unwrap();
            let clip = GradClip {
                max_norm: Some(1.0),
                max_value: None,
            };
            Trainer::new(
                model,
                Box::new(rmsprop),
                Some(Box::new(Scheduled::new(restarts, Interval::Step))),
                config,
            )
            .with_accumulation(3)
            .with_grad_clip(clip)
        }
        _ => {
            let lion = Lion::new(params, LionConfig::default()).unwrap();
            let steps = Scheduled::new(MultiStepLr::new(vec![2, 3], 0.1).unwrap(), Interval::Epoch);
            Trainer::new(model, Box::new(lion), Some(Box::new(steps)), config)
        }
    }
}

/// The newest checkpoint in a run's folder.
pub(crate) fn newest(folder: &Path) -> Option<PathBuf> {
    CheckpointFolder::of_run(folder)
        .list()
        .unwrap()
        .pop()
        .map(|(_, path)| path)
}

/// A callback that does nothing.
pub(crate) struct Nothing;
impl Callback for Nothing {}

/// Ten epochs of four steps, with lines of the log at odd places.
pub(crate) fn forty_steps() -> Trainer {
    logging(trainer(10, 0.01))
}

pub(crate) fn logging(trainer: Trainer) -> Trainer {
    let config = TrainerConfig {
        log_every: 3,
        ..trainer.config()
    };
    trainer.with_config(config)
}

/// Stops after so many steps of the optimiser.
pub(crate) struct StopAtStep(pub(crate) u64);

impl Callback for StopAtStep {
    fn on_step_end(&mut self, trainer: &Trainer, _: &StepReport) -> kestrel_train::Result<Control> {
        Ok(if trainer.progress().step == self.0 {
            Control::Stop
        } else {
            Control::Continue
        })
    }
}

pub(crate) fn straight(make: &dyn Fn() -> Trainer) -> Vec<(String, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    go_on(dir.path(), make, |c| c, &mut Nothing).unwrap();
    files(dir.path())
}

pub(crate) fn stopped_at(steps: &[u64], make: &dyn Fn() -> Trainer) -> Vec<(String, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    for step in steps {
        let trainer = go_on(dir.path(), make, |c| c, &mut StopAtStep(*step)).unwrap();
        // An epoch's last step may come after its last batch, and is told of with the next.
        assert!((*step..=*step + 1).contains(&trainer.progress().step));
    }
    go_on(dir.path(), make, |c| c, &mut Nothing).unwrap();
    files(dir.path())
}

/// Every file of a run that its options, data and seed decide.
pub(crate) fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let newest = CheckpointFolder::of_run(folder).list().unwrap().pop().unwrap();
    let newest = format!("checkpoints/{}", newest.1.file_name().unwrap().display());
    let names = [
        BEST_FILE.to_owned(),
        newest,
        "metrics.jsonl".to_owned(),
        "metrics.csv".to_owned(),
    ];
    let read = |name: String| {
        let bytes = std::fs::read(folder.join(&name)).unwrap();
        (name, bytes)
    };
    names.map(read).into()
}

pub(crate) fn same(got: &[(String, Vec<u8>)], want: &[(String, Vec<u8>)], what: &str) {
    for ((name, got), (_, want)) in got.iter().zip(want) {
        if name.starts_with("metrics") {
            assert_eq!(
                String::from_utf8_lossy(got),
                String::from_utf8_lossy(want),
                "{what}: {name}"
            );
        }
        assert!(got == want, "{what}: {name} differs");
    }
}

/// Trains from the newest checkpoint in a folder, or from the start, with logs.
pub(crate) fn go_on(
    folder: &Path,
    make: &dyn Fn() -> Trainer,
    set: impl FnOnce(Checkpointer) -> Checkpointer,
    extra: &mut dyn Callback,
) -> kestrel_train::Result<Trainer> {
    go_on_with(folder, make, set, extra, &loader(1, 27, true))
}

pub(crate) fn go_on_with(
    folder: &Path,
    make: &dyn Fn() -> Trainer,
    set: impl FnOnce(Checkpointer) -> Checkpointer,
    extra: &mut dyn Callback,
    train: &dyn BatchSource,
) -> kestrel_train::Result<Trainer> {
    let mut trainer = make();
    if let Some(newest) = CheckpointFolder::of_run(folder).newest()? {
        newest.checkpoint.restore(&mut trainer)?;
    }
    let header = RunHeader {
        name: "toy".into(),
        model: "cnn".into(),
        classes: info(2).classes,
        seed: 5,
        options: "0".into(),
    };
    let mut log = MetricsLog::open(folder, &header, trainer.progress())?;
    let mut csv = MetricsCsv::new(folder);
    let checkpointer = Checkpointer::new(folder.to_owned(), info(2), serde_json::json!({"width": 2}));
    let mut checkpointer = set(checkpointer.after_logs(vec![MetricsLog::path(folder)]));
    trainer.fit(
        train,
        &loader(2, 9, false),
        &mut [&mut log, &mut csv, &mut checkpointer, extra],
    )?;
    Ok(trainer)
}

/// A loss that is none in some batches, counted from 0, or whose gradient is none there.
pub(crate) struct Broken {
    batches: Range<usize>,
    gradient_alone: bool,
    seen: AtomicUsize,
}

impl Broken {
    pub(crate) fn new(batches: Range<usize>, gradient_alone: bool) -> Self {
        Self {
            batches,
            gradient_alone,
            seen: AtomicUsize::new(0),
        }
    }
}

impl Loss for Broken {
    fn forward(&self, logits: &Tensor, targets: Targets<'_>) -> kestrel_train::Result<Tensor> {
        let loss = CrossEntropyLoss::default().forward(logits, targets)?;
        let batch = self.seen.fetch_add(1, Ordering::Relaxed);
        if !self.batches.contains(&batch) {
            return Ok(loss);
        }
        // The slope of the root at 0 is infinite.
        let sum = logits.sum_all()?;
        let zero = sum.sub(&sum)?;
        Ok(if self.gradient_alone {
            (loss + zero.sqrt()?)?
        } else {
            (loss * f64::NAN)?
        })
    }
}
