//! A resumed run is the run that was never stopped, bit for bit.

use std::path::Path;

use candle_core::{DType, Device};
use kestrel_kernels::random::{KeyedRng, Purpose};
use kestrel_kernels::update::AdamConfig;
use kestrel_models::weights::ModelInfo;
use kestrel_train::checkpoint::{BEST_FILE, Checkpoint, Checkpointer, Weights};
use kestrel_train::lr_scheduler::{ReduceLROnPlateau, ReduceLROnPlateauConfig};
use kestrel_train::optim::Adam;
use kestrel_train::{Callback, Control, EpochReport, Error, Trainer, TrainerConfig, callback::EpochTiming};

use crate::toy_run::{Nothing, info, loader, newest, other, trainer};

fn fit(trainer: &mut Trainer, folder: &Path, extra: &mut dyn Callback) -> kestrel_train::Result<()> {
    let mut checkpointer = Checkpointer::new(folder.to_owned(), info(2), serde_json::json!({"width": 2}));
    trainer.fit(
        &loader(1, 27, true),
        &loader(2, 9, false),
        &mut [&mut checkpointer, extra],
    )
}

/// Ends the run after an epoch.
struct StopAfter(usize);
impl Callback for StopAfter {
    fn on_epoch_end(&mut self, _: &Trainer, report: &EpochReport, _: &EpochTiming) -> kestrel_train::Result<Control> {
        Ok(if report.epoch == self.0 {
            Control::Stop
        } else {
            Control::Continue
        })
    }
}

/// The bytes of the checkpoint and the best weights of a run that is stopped and resumed after each of `stops`.
fn run(stops: &[usize]) -> (Vec<u8>, Vec<u8>) {
    run_of(stops, &|| trainer(5, 0.01))
}

fn run_of(stops: &[usize], make: &dyn Fn() -> Trainer) -> (Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    for stop in stops.iter().chain([&usize::MAX]) {
        let mut trainer = make();
        if let Some(path) = newest(dir.path()) {
            Checkpoint::load(&path).unwrap().restore(&mut trainer).unwrap();
        }
        fit(&mut trainer, dir.path(), &mut StopAfter(*stop)).unwrap();
    }
    (
        std::fs::read(newest(dir.path()).unwrap()).unwrap(),
        std::fs::read(dir.path().join(BEST_FILE)).unwrap(),
    )
}

#[test]
fn a_resumed_run_is_the_straight_run() {
    let straight = run(&[]);
    for stops in [&[1][..], &[4], &[1, 2, 3]] {
        assert!(run(stops) == straight, "stopped after {stops:?}");
    }
}

#[test]
fn every_method_resumes_as_though_it_had_never_stopped() {
    for which in 0..4 {
        let straight = run_of(&[], &|| other(which));
        for stops in [&[1][..], &[2, 3]] {
            assert!(
                run_of(stops, &|| other(which)) == straight,
                "{which}, stopped after {stops:?}"
            );
        }
    }
}

#[test]
fn a_checkpoint_of_other_methods_is_refused() {
    for (saved, loaded, word) in [(0, 3, "averages"), (2, 3, "scheduler"), (3, 2, "scheduler")] {
        let dir = tempfile::tempdir().unwrap();
        fit(&mut other(saved), dir.path(), &mut StopAfter(1)).unwrap();
        let checkpoint = Checkpoint::load(&newest(dir.path()).unwrap()).unwrap();
        let error = checkpoint.restore(&mut other(loaded)).unwrap_err().to_string();
        assert!(error.contains(word), "{saved} into {loaded}: {error}");
    }
}

/// The average is what is validated and saved; the model goes on from its own weights.
#[test]
fn the_best_weights_are_the_average() {
    let dir = tempfile::tempdir().unwrap();
    let mut trainer = other(0);
    fit(&mut trainer, dir.path(), &mut StopAfter(1)).unwrap();
    let values = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let best = Weights::load(&dir.path().join(BEST_FILE)).unwrap().tensors;
    let average = trainer.average().unwrap().weights().unwrap().clone();
    let model = trainer.model().params().state_dict().unwrap();
    let checkpoint = Weights::load(&newest(dir.path()).unwrap()).unwrap().tensors;
    for (name, tensor) in &best {
        assert_eq!(values(tensor), values(&average[name]), "{name}");
        assert_eq!(values(tensor), values(&checkpoint[name]), "{name}");
    }
    assert!(best.iter().any(|(name, tensor)| values(tensor) != values(&model[name])));
}

#[test]
fn the_thread_count_changes_nothing() {
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&[]))
    };
    let one = with(1);
    assert!(with(2) == one && with(4) == one);
}

#[test]
fn training_learns_and_reduces_the_rate() {
    let mut trainer = trainer(8, 0.01);
    let (train, val) = (loader(1, 240, true), loader(2, 9, false));
    trainer.fit(&train, &val, &mut []).unwrap();
    let history = &trainer.progress().history;
    assert_eq!(history.len(), 8);
    let least = history.iter().map(|e| e.train_loss).fold(f64::INFINITY, f64::min);
    assert!(least < 0.8 * history[0].train_loss, "{history:?}");
    assert!(history[7].lr < history[0].lr, "{history:?}");
    assert_eq!(trainer.progress().step, 8 * 30);
    assert_eq!(trainer.progress().samples_seen, 8 * 240);
    let best = history.iter().map(|e| e.val_accuracy).fold(0.0, f64::max);
    assert_eq!(trainer.progress().best_accuracy, Some(best));
}

#[test]
fn weights_can_be_read_from_either_file() {
    let dir = tempfile::tempdir().unwrap();
    fit(&mut trainer(1, 0.01), dir.path(), &mut Nothing).unwrap();
    let best = Weights::load(&dir.path().join(BEST_FILE)).unwrap();
    let checkpoint = Weights::load(&newest(dir.path()).unwrap()).unwrap();
    for found in [&best.info, &checkpoint.info] {
        assert!(found.temperature.is_some_and(|temperature| temperature > 0.0));
        let rest = ModelInfo {
            temperature: None,
            ..found.clone()
        };
        assert_eq!(rest, info(2));
    }
    assert_eq!(
        best.tensors.keys().collect::<Vec<_>>(),
        checkpoint.tensors.keys().collect::<Vec<_>>()
    );
    let other = info(4).model.build(0, DType::F32, &Device::Cpu).unwrap();
    let error = other.params().load_state_dict(&best.tensors).unwrap_err().to_string();
    assert!(
        error.contains("conv1.weight") && error.contains("fc2.weight"),
        "{error}"
    );
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_before_the_update() {
    let dir = tempfile::tempdir().unwrap();
    let mut trainer = trainer(3, 1e30);
    let error = fit(&mut trainer, dir.path(), &mut Nothing).unwrap_err();
    assert!(matches!(error, Error::NonFinite(_)), "{error}");
    assert!(!dir.path().join(BEST_FILE).exists() && newest(dir.path()).is_none());
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fit(&mut trainer(1, 0.01), dir.path(), &mut Nothing).unwrap();
    let good = std::fs::read(newest(dir.path()).unwrap()).unwrap();
    let path = dir.path().join("damaged");
    let mut rng = KeyedRng::new(0, Purpose::Init, 9, 0);
    for _ in 0..200 {
        let mut bytes = good.clone();
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << rng.below(8);
        std::fs::write(&path, &bytes).unwrap();
        let error = Checkpoint::load(&path)
            .expect_err("a flipped bit must be noticed")
            .to_string();
        assert!(error.contains("damaged"), "{error}");
    }
    for i in 0..64 {
        std::fs::write(&path, &good[..good.len() * i / 64]).unwrap();
        assert!(Checkpoint::load(&path).is_err(), "cut at {i}/64");
    }
    std::fs::write(&path, &good).unwrap();
    Checkpoint::load(&path).unwrap();
}

#[test]
fn a_checkpoint_of_another_seed_or_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fit(&mut trainer(1, 0.01), dir.path(), &mut Nothing).unwrap();
    let checkpoint = Checkpoint::load(&newest(dir.path()).unwrap()).unwrap();
    let build = |width, seed| {
        let model = info(width).model.build(0, DType::F32, &Device::Cpu).unwrap();
        let adam = Adam::new(model.params().trainable(), AdamConfig::default()).unwrap();
        let plateau = ReduceLROnPlateau::new(ReduceLROnPlateauConfig::default()).unwrap();
        let config = TrainerConfig {
            epochs: 1,
            log_every: 0,
            seed,
        };
        Trainer::new(model, Box::new(adam), Some(Box::new(plateau)), config)
    };
    let error = checkpoint.restore(&mut build(2, 6)).unwrap_err().to_string();
    assert!(error.contains("seed is 5"), "{error}");
    let error = checkpoint.restore(&mut build(3, 5)).unwrap_err().to_string();
    assert!(error.contains("conv1.weight"), "{error}");
}
