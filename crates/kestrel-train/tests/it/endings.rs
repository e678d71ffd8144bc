//! How runs end where something else fails: what is on the disk then, and what is said.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Tensor};
use kestrel_kernels::SgdConfig;
use kestrel_models::{Mode, Model, Params, StateDict};
use kestrel_train::checkpoint::{BEST_FILE, CheckpointFolder, Checkpointer, Disk, Every, LocalDisk, SyncWrite};
use kestrel_train::optim::{NamedVars, Optimizer, Sgd};
use kestrel_train::{Callback, Error, Trainer, TrainerConfig};

use crate::toy_run::{Nothing, StopAtStep, files, go_on, info, loader, newest, same, straight, trainer};

/// A disk on which one file cannot be made, the `n`th from 0, and all else can.
struct FullOnce {
    n: usize,
    made: AtomicUsize,
}

impl FullOnce {
    fn at(n: usize) -> Arc<Self> {
        let made = AtomicUsize::new(0);
        Arc::new(Self { n, made })
    }

    fn has_failed(&self) -> bool {
        self.made.load(Ordering::Relaxed) > self.n
    }
}

impl Disk for FullOnce {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SyncWrite>> {
        if self.made.fetch_add(1, Ordering::Relaxed) == self.n {
            return Err(io::ErrorKind::StorageFull.into());
        }
        LocalDisk.create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        LocalDisk.sync_folder(folder)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        LocalDisk.sync_file(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }
}

/// The run ends with the error of a save, but its last state and the best weights are on the disk.
#[test]
fn where_a_save_failed_the_state_in_which_the_run_ends_is_saved() {
    let make = || trainer(3, 0.01);
    let want = straight(&make);
    for n in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let disk = FullOnce::at(n);
        let used = Arc::clone(&disk);
        let result = go_on(dir.path(), &make, |c| c.on_disk(used), &mut Nothing);
        if !disk.has_failed() {
            assert!(n > 3 && result.is_ok());
            break;
        }
        assert!(matches!(result, Err(Error::Write { .. })), "file {n}");
        let log = std::fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
        let reached = log.lines().filter(|line| line.contains(r#""kind":"epoch""#)).count();
        let saved = CheckpointFolder::of_run(dir.path()).newest().unwrap().unwrap();
        assert_eq!(saved.checkpoint.progress().epoch, reached, "file {n}");
        assert!(dir.path().join(BEST_FILE).exists(), "file {n}");
        go_on(dir.path(), &make, |c| c, &mut Nothing).unwrap();
        same(&files(dir.path()), &want, &format!("file {n}"));
    }
}

#[test]
fn where_a_save_failed_the_state_of_a_stop_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let set = |c: Checkpointer| c.every(Some(Every::Steps(2))).on_disk(FullOnce::at(0));
    let result = go_on(dir.path(), &|| trainer(3, 0.01), set, &mut StopAtStep(3));
    assert!(matches!(result, Err(Error::Write { .. })));
    let saved = CheckpointFolder::of_run(dir.path()).newest().unwrap().unwrap();
    assert_eq!(saved.checkpoint.progress().step, 3);
}

/// Fails at the end of the fit, with a word.
struct FailsAtTheEnd(&'static str);

impl Callback for FailsAtTheEnd {
    fn on_fit_end(&mut self, _: &Trainer) -> kestrel_train::Result<()> {
        Err(Error::EmptySplit { split: self.0 })
    }
}

#[test]
fn a_callback_that_fails_at_the_end_keeps_no_other_from_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut checkpointer = Checkpointer::new(dir.path().to_owned(), info(2), serde_json::Value::Null);
    let (mut first, mut second) = (FailsAtTheEnd("first"), FailsAtTheEnd("second"));
    let error = trainer(1, 0.01)
        .fit(
            &loader(1, 27, true),
            &loader(2, 9, false),
            &mut [&mut StopAtStep(2), &mut first, &mut checkpointer, &mut second],
        )
        .unwrap_err();
    assert!(error.to_string().contains("first"), "{error}");
    let saved = CheckpointFolder::of_run(dir.path()).newest().unwrap().unwrap();
    assert_eq!(saved.checkpoint.progress().step, 2);
}

/// A model whose logits in evaluation are changed.
struct InEvaluation(Box<dyn Model>, fn(Tensor) -> Result<Tensor, candle_core::Error>);

impl Model for InEvaluation {
    fn forward(&self, images: &Tensor, mode: Mode) -> kestrel_models::Result<Tensor> {
        let logits = self.0.forward(images, mode)?;
        Ok(if mode.is_train() { logits } else { (self.1)(logits)? })
    }

    fn params(&self) -> &Params {
        self.0.params()
    }

    fn num_classes(&self) -> usize {
        self.0.num_classes()
    }
}

fn model() -> Box<dyn Model> {
    info(2).model.build(5, DType::F32, &Device::Cpu).unwrap()
}

fn sgd(model: &dyn Model) -> Sgd {
    Sgd::new(model.params().trainable(), SgdConfig::default()).unwrap()
}

fn trainer_of(model: Box<dyn Model>, optimizer: Box<dyn Optimizer>) -> Trainer {
    let config = TrainerConfig {
        epochs: 3,
        log_every: 0,
        seed: 5,
    };
    Trainer::new(model, optimizer, None, config)
}

#[test]
fn a_run_whose_validation_loss_is_none_is_saved_pruned_and_gone_on_with() {
    let make = || {
        let model = InEvaluation(model(), |logits| logits * f64::NAN);
        let sgd = sgd(&model);
        trainer_of(Box::new(model), Box::new(sgd))
    };
    let run = |stops: &[u64]| {
        let dir = tempfile::tempdir().unwrap();
        for stop in stops.iter().chain([&u64::MAX]) {
            let set = |c: Checkpointer| c.every(Some(Every::Steps(3))).keep_last(1);
            let trainer = go_on(dir.path(), &make, set, &mut StopAtStep(*stop)).unwrap();
            let history = &trainer.progress().history;
            assert!(history.iter().all(|epoch| epoch.val_loss.is_nan() && !epoch.improved));
        }
        let folder = CheckpointFolder::of_run(dir.path());
        assert_eq!(folder.list().unwrap().len(), 1);
        assert_eq!(folder.newest().unwrap().unwrap().checkpoint.progress().epoch, 3);
        assert!(!dir.path().join(BEST_FILE).exists());
        let read = |path| std::fs::read(path).unwrap();
        (
            read(newest(dir.path()).unwrap()),
            read(dir.path().join("metrics.jsonl")),
        )
    };
    let want = run(&[]);
    assert!(String::from_utf8_lossy(&want.1).contains(r#""val_loss":"NaN""#));
    for stops in [&[4][..], &[6], &[2, 9]] {
        assert!(run(stops) == want, "stopped after {stops:?}");
    }
}

const NO_MEMORY: &str = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";

/// An optimiser on a device without memory.
struct Full(Sgd);

impl Optimizer for Full {
    fn step(&mut self, _: &candle_core::backprop::GradStore) -> kestrel_train::Result<()> {
        Err(candle_core::Error::Msg(NO_MEMORY.to_owned()).into())
    }

    fn params(&self) -> NamedVars {
        self.0.params()
    }

    fn lrs(&self) -> Vec<f64> {
        self.0.lrs()
    }

    fn set_lrs(&mut self, lrs: &[f64]) {
        self.0.set_lrs(lrs);
    }

    fn state_dict(&self) -> kestrel_train::Result<StateDict> {
        self.0.state_dict()
    }

    fn load_state_dict(&mut self, state: &StateDict) -> kestrel_train::Result<()> {
        self.0.load_state_dict(state)
    }
}

#[test]
fn a_device_without_memory_for_the_update_or_the_validation_is_named_too() {
    let optimizer = sgd(model().as_ref());
    let in_update = trainer_of(model(), Box::new(Full(optimizer)));
    let validated = InEvaluation(model(), |_| Err(candle_core::Error::Msg(NO_MEMORY.to_owned())));
    let optimizer = sgd(&validated);
    let in_validation = trainer_of(Box::new(validated), Box::new(optimizer));
    for mut trainer in [in_update, in_validation] {
        let error = trainer
            .fit(&loader(1, 27, true), &loader(2, 9, false), &mut [])
            .unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { batch_size: 8, .. }), "{error}");
    }
}
