//! A run on a disk that fails and on numbers that are none: what is on the disk is whole, and goes on to the straight run's end.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use candle_core::Tensor;
use kestrel_kernels::random::{KeyedRng, Purpose};
use kestrel_models::{Mode, Model, Params};
use kestrel_train::checkpoint::{BEST_FILE, CheckpointFolder, Checkpointer, Disk, Every, LocalDisk, SyncWrite};
use kestrel_train::optim::{Optimizer, Sgd};
use kestrel_train::{Callback, Error, GradClip, NonFiniteDump, Trainer, TrainerConfig};

use crate::toy_run::{Broken, Nothing, files, go_on, info, loader, same, trainer};

/// A disk of a process that is killed: after so many operations nothing more is done, and the one under way is half done.
#[derive(Clone)]
struct Dying(Arc<Mutex<Life>>);

struct Life {
    left: usize,
    log: Vec<String>,
}

impl Dying {
    fn after(operations: usize) -> Self {
        Self(Arc::new(Mutex::new(Life {
            left: operations,
            log: Vec::new(),
        })))
    }

    /// Whether the operation is still done.
    fn lives(&self, what: &str) -> bool {
        let mut life = self.0.lock().unwrap();
        life.log.push(what.to_owned());
        let lives = life.left > 0;
        life.left = life.left.saturating_sub(1);
        lives
    }

    fn operations(&self) -> Vec<String> {
        self.0.lock().unwrap().log.clone()
    }
}

fn dead<T>() -> io::Result<T> {
    Err(io::Error::other("killed"))
}

struct DyingFile(Box<dyn SyncWrite>, Dying);

impl Write for DyingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1.lives("write") {
            return self.0.write(bytes);
        }
        self.0.write_all(&bytes[..bytes.len() / 2])?;
        dead()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl SyncWrite for DyingFile {
    fn sync(&self) -> io::Result<()> {
        if self.1.lives("sync") { self.0.sync() } else { dead() }
    }
}

impl Disk for Dying {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SyncWrite>> {
        let lives = self.lives("create");
        let file = LocalDisk.create(path)?;
        // An empty file is what stays of a process that is killed here.
        if lives {
            Ok(Box::new(DyingFile(file, self.clone())))
        } else {
            dead()
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.lives("rename") {
            LocalDisk.rename(from, to)
        } else {
            dead()
        }
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if self.lives("sync folder") {
            LocalDisk.sync_folder(folder)
        } else {
            dead()
        }
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        if self.lives("sync file") {
            LocalDisk.sync_file(path)
        } else {
            dead()
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if self.lives("remove") {
            LocalDisk.remove(path)
        } else {
            dead()
        }
    }
}

fn two_epochs() -> Trainer {
    trainer(2, 0.01)
}

/// Killed at every operation of every save, a run goes on to the end of the straight one. With one checkpoint kept, the last
/// one is there at every instant.
#[test]
fn killed_at_any_instant_of_a_save_the_run_goes_on_exactly() {
    let often = |c: Checkpointer| c.every(Some(Every::Steps(3))).keep_last(1);
    let straight = tempfile::tempdir().unwrap();
    let disk = Dying::after(usize::MAX);
    let recorded = disk.clone();
    go_on(
        straight.path(),
        &two_epochs,
        |c| often(c).on_disk(Arc::new(recorded)),
        &mut Nothing,
    )
    .unwrap();
    let want = files(straight.path());
    let operations = disk.operations();
    for kind in [
        "create",
        "write",
        "sync",
        "rename",
        "sync folder",
        "remove",
        "sync file",
    ] {
        assert!(operations.iter().any(|operation| operation == kind), "no {kind}");
    }
    let mut committed = false;
    for (n, operation) in operations.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Dying::after(n));
        let died = go_on(dir.path(), &two_epochs, |c| often(c).on_disk(disk), &mut Nothing);
        let what = format!("killed at operation {n}, {operation}");
        assert!(matches!(died, Err(Error::Write { .. })), "{what}");
        let folder = CheckpointFolder::of_run(dir.path());
        let newest = folder.newest().unwrap();
        committed |= newest.is_some();
        assert_eq!(
            newest.is_some(),
            committed,
            "{what}: a checkpoint that was there is gone"
        );
        assert!(newest.is_none_or(|newest| newest.passed_over.is_empty()), "{what}");
        go_on(dir.path(), &two_epochs, often, &mut Nothing).unwrap();
        same(&files(dir.path()), &want, &what);
        let left = std::fs::read_dir(folder.path()).unwrap();
        let scratch = left.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
        assert_eq!(scratch.count(), 0, "{what}");
    }
    assert!(committed);
}

#[test]
fn the_newest_is_chosen_by_number_and_must_be_valid() {
    let dir = tempfile::tempdir().unwrap();
    go_on(dir.path(), &two_epochs, |c| c, &mut Nothing).unwrap();
    let folder = CheckpointFolder::of_run(dir.path());
    let (_, good) = folder.list().unwrap().pop().unwrap();
    let bytes = std::fs::read(&good).unwrap();
    std::fs::remove_dir_all(folder.path()).unwrap();
    folder.prepare().unwrap();
    for name in ["step-9.safetensors", "step-10.safetensors", "step-100.safetensors"] {
        std::fs::write(folder.path().join(name), &bytes).unwrap();
    }
    std::fs::write(folder.path().join(".step-00000300.safetensors.partial"), &bytes).unwrap();
    std::fs::write(folder.path().join("step-200.safetensors"), &bytes[..bytes.len() - 9]).unwrap();
    let newest = folder.newest().unwrap().unwrap();
    assert!(newest.path.ends_with("step-100.safetensors"));
    let [error] = &newest.passed_over[..] else {
        panic!("{:?}", newest.passed_over)
    };
    assert!(error.to_string().contains("step-200.safetensors"), "{error}");
    // What lies beyond is set aside, and not found again.
    assert_eq!(folder.abandon_after(100).unwrap().len(), 1);
    assert_eq!(folder.list().unwrap().len(), 3);
    // Where none is valid, that is an error, and no new run.
    for (_, path) in folder.list().unwrap() {
        std::fs::write(path, "torn").unwrap();
    }
    let error = folder.newest().unwrap_err();
    assert!(matches!(error, Error::InvalidCheckpoint { .. }), "{error}");
}

#[test]
fn the_keep_policy_keeps_the_last_and_the_best() {
    let dir = tempfile::tempdir().unwrap();
    let trainer = go_on(
        dir.path(),
        &|| trainer(10, 0.01),
        |c| c.every(Some(Every::Steps(1))).keep_last(3),
        &mut Nothing,
    );
    let best = trainer.unwrap().progress().best_step.unwrap();
    let steps: Vec<u64> = CheckpointFolder::of_run(dir.path())
        .list()
        .unwrap()
        .iter()
        .map(|(step, _)| *step)
        .collect();
    let mut want = vec![best, 38, 39, 40];
    want.dedup();
    assert_eq!(steps, want);
    assert!(best < 38, "the best one is not among the last: {best}");
}

#[test]
fn numbers_that_are_none_stop_the_run_and_are_never_saved() {
    for gradient_alone in [true, false] {
        for clip in [
            GradClip::default(),
            GradClip {
                max_value: Some(1.0),
                max_norm: Some(1.0),
            },
        ] {
            let dir = tempfile::tempdir().unwrap();
            // The second step of the second epoch, which no line of the log is about.
            let make = || {
                let broken = Broken::new(5..usize::MAX, gradient_alone);
                trainer(3, 0.01).with_loss(Box::new(broken)).with_grad_clip(clip)
            };
            let mut dump = NonFiniteDump::new(dir.path(), serde_json::json!({"lr": 0.01}));
            let error = go_on(dir.path(), &make, |c| c.every(Some(Every::Steps(1))), &mut dump)
                .err()
                .unwrap();
            let Error::NonFinite(found) = &error else {
                panic!("{error}")
            };
            assert_eq!((found.epoch, found.step, found.steps_made), (2, 2, 5));
            assert_eq!(found.samples, loader(1, 27, true).order(1)[8..16]);
            assert_eq!(found.loss.is_finite(), gradient_alone);
            assert!(!found.grad_norm.is_finite() && !found.norms.is_empty());
            let text = error.to_string();
            for word in [
                "epoch 2, step 2",
                "gradient norm NaN",
                "lr 1.000e-2",
                &format!("{:?}", found.samples),
            ] {
                assert!(text.contains(word), "{word:?} in {text}");
            }
            let dump = std::fs::read_to_string(dump.written().unwrap()).unwrap();
            let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
            assert_eq!(dump["samples"].as_array().unwrap().len(), 8);
            assert_eq!(
                (&dump["config"]["lr"], &dump["grad_norm"]),
                (&0.01.into(), &"NaN".into())
            );
            assert!(dump["grad_norms"]["conv1.weight"].is_string());
            // The last state that was saved is the one before, and it is whole.
            let newest = CheckpointFolder::of_run(dir.path()).newest().unwrap().unwrap();
            assert!(newest.passed_over.is_empty() && newest.checkpoint.progress().step == 5);
        }
    }
}

/// Moves a weight to infinity by a step that is finite.
struct Overflowing(Sgd);

impl Optimizer for Overflowing {
    fn step(&mut self, _: &candle_core::backprop::GradStore) -> kestrel_train::Result<()> {
        let (_, var) = &self.0.params()[0];
        Ok(var.set(&(var.as_tensor().detach() + f64::INFINITY)?)?)
    }

    fn params(&self) -> kestrel_train::optim::NamedVars {
        self.0.params()
    }

    fn lrs(&self) -> Vec<f64> {
        self.0.lrs()
    }

    fn set_lrs(&mut self, lrs: &[f64]) {
        self.0.set_lrs(lrs);
    }

    fn state_dict(&self) -> kestrel_train::Result<kestrel_models::StateDict> {
        self.0.state_dict()
    }

    fn load_state_dict(&mut self, state: &kestrel_models::StateDict) -> kestrel_train::Result<()> {
        self.0.load_state_dict(state)
    }
}

#[test]
fn weights_that_an_update_made_infinite_are_never_saved() {
    let dir = tempfile::tempdir().unwrap();
    let make = || {
        let model = info(2)
            .model
            .build(5, candle_core::DType::F32, &candle_core::Device::Cpu)
            .unwrap();
        let sgd = Sgd::new(model.params().trainable(), kestrel_kernels::SgdConfig::default()).unwrap();
        let config = TrainerConfig {
            epochs: 1,
            log_every: 0,
            seed: 5,
        };
        Trainer::new(model, Box::new(Overflowing(sgd)), None, config)
    };
    let error = go_on(dir.path(), &make, |c| c.every(Some(Every::Steps(1))), &mut Nothing)
        .err()
        .unwrap();
    assert!(
        matches!(error, Error::NonFiniteState { .. } | Error::NonFinite(_)),
        "{error}"
    );
    assert!(CheckpointFolder::of_run(dir.path()).list().unwrap().is_empty());
    assert!(!dir.path().join(BEST_FILE).exists());
}

/// A model on a device whose memory is at an end with the sixth batch.
struct Full(Box<dyn Model>, Mutex<usize>);

impl Model for Full {
    fn forward(&self, images: &Tensor, mode: Mode) -> kestrel_models::Result<Tensor> {
        if mode.is_train() {
            let mut left = self.1.lock().unwrap();
            *left -= 1;
            if *left == 0 {
                let words = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
                return Err(candle_core::Error::Msg(words.to_owned()).into());
            }
        }
        self.0.forward(images, mode)
    }

    fn params(&self) -> &Params {
        self.0.params()
    }

    fn num_classes(&self) -> usize {
        self.0.num_classes()
    }
}

#[test]
fn a_device_without_memory_is_named_with_the_batch_size_and_the_checkpoint_stays() {
    let dir = tempfile::tempdir().unwrap();
    let make = |batches: usize| {
        let model = info(2)
            .model
            .build(5, candle_core::DType::F32, &candle_core::Device::Cpu)
            .unwrap();
        let sgd = Sgd::new(model.params().trainable(), kestrel_kernels::SgdConfig::default()).unwrap();
        let config = TrainerConfig {
            epochs: 2,
            log_every: 0,
            seed: 5,
        };
        Trainer::new(Box::new(Full(model, Mutex::new(batches))), Box::new(sgd), None, config)
    };
    let error = go_on(dir.path(), &|| make(6), |c| c, &mut Nothing).err().unwrap();
    assert!(matches!(error, Error::OutOfMemory { batch_size: 8, .. }), "{error}");
    assert!(
        error.to_string().contains("batch-size") && error.to_string().contains("is a new run"),
        "{error}"
    );
    let newest = CheckpointFolder::of_run(dir.path()).newest().unwrap().unwrap();
    assert_eq!(newest.checkpoint.progress().epoch, 1);
    go_on(dir.path(), &|| make(usize::MAX), |c| c, &mut Nothing).unwrap();
}

/// What stands on the disk at each truncation of a checkpoint is refused by name, whatever its length.
#[test]
fn random_bytes_are_no_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let folder = CheckpointFolder::of_run(dir.path());
    folder.prepare().unwrap();
    let mut rng = KeyedRng::new(3, Purpose::Init, 1, 0);
    for length in 0..200u64 {
        let bytes: Vec<u8> = (0..length).map(|_| rng.below(256) as u8).collect();
        std::fs::write(folder.file(length), bytes).unwrap();
    }
    assert!(matches!(folder.newest(), Err(Error::InvalidCheckpoint { .. })));
    let mut none = Nothing;
    let callback: &mut dyn Callback = &mut none;
    assert!(go_on(dir.path(), &two_epochs, |c| c, callback).is_err());
}

/// What is done to which file, in order; and done.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    fn say(&self, what: &str, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // A scratch file has the process and a number before its ending.
        let name = match name.strip_suffix(".partial") {
            Some(scratch) => scratch.rsplit_once('.').unwrap().0,
            None => &name,
        };
        self.0.lock().unwrap().push(format!("{what} {name}"));
    }
}

impl Disk for Recorder {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SyncWrite>> {
        self.say("create", path);
        LocalDisk.create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.say("rename onto", to);
        LocalDisk.rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        LocalDisk.sync_folder(folder)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.say("sync", path);
        LocalDisk.sync_file(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.say("remove", path);
        LocalDisk.remove(path)
    }
}

#[test]
fn logs_are_synced_before_the_checkpoint_and_the_best_weights_come_first() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Recorder::default();
    let recorded = Arc::new(disk.clone());
    go_on(dir.path(), &|| trainer(1, 0.01), |c| c.on_disk(recorded), &mut Nothing).unwrap();
    let order = [
        "sync metrics.jsonl",
        "create .best.safetensors",
        "rename onto best.safetensors",
        "create .step-00000004.safetensors",
        "rename onto step-00000004.safetensors",
    ];
    assert_eq!(*disk.0.lock().unwrap(), order);
}
