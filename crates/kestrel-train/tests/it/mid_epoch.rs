//! A run that is stopped after any step, and goes on, is the run that was never stopped: weights, optimiser and logs, byte for
//! byte.

use std::sync::Arc;

use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::transforms::presets;
use kestrel_data::{BadSamplePolicy, OnBadSample};
use kestrel_train::callback::EpochTiming;
use kestrel_train::checkpoint::{BEST_FILE, CheckpointFolder, Every};
use kestrel_train::run_log::{MetricsLog, RunHeader};
use kestrel_train::{
    Callback, Control, EarlyStopping, EpochReport, Error, StepReport, TimeLimit, Trainer, early_stopping::Watched,
};

use crate::accumulation::Torn;
use crate::toy_run::{
    Nothing, StopAtStep, dataset, files, forty_steps, go_on, go_on_with, loader, logging, other, same, stopped_at,
    straight, trainer,
};

#[test]
fn a_run_stopped_after_any_step_goes_on_exactly_with_any_number_of_threads() {
    let want = straight(&forty_steps);
    for threads in [1, 2, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for steps in [&[1][..], &[7], &[20], &[19], &[1, 2, 3, 4, 39]] {
            let got = pool.install(|| stopped_at(steps, &forty_steps));
            same(&got, &want, &format!("stopped after {steps:?} with {threads} threads"));
        }
    }
}

#[test]
fn every_method_goes_on_within_an_epoch() {
    for which in 0..4 {
        let make = || logging(other(which));
        let want = straight(&make);
        for steps in [&[1][..], &[6, 7]] {
            same(&stopped_at(steps, &make), &want, &format!("method {which}, {steps:?}"));
        }
    }
}

/// Checkpoints that are saved on the way are no stops, and change nothing; each of them is a place to go on from.
#[test]
fn every_checkpoint_on_the_way_is_a_place_to_go_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let make = || logging(trainer(3, 0.01));
    let want = straight(&make);
    go_on(
        dir.path(),
        &make,
        |c| c.every(Some(Every::Steps(1))).keep_last(0),
        &mut Nothing,
    )
    .unwrap();
    same(&files(dir.path()), &want, "every step is saved");
    let all = CheckpointFolder::of_run(dir.path()).list().unwrap();
    assert_eq!(
        all.iter().map(|(step, _)| *step).collect::<Vec<_>>(),
        (1..=12).collect::<Vec<_>>()
    );
    for (step, path) in all.iter().rev() {
        let again = tempfile::tempdir().unwrap();
        let folder = CheckpointFolder::of_run(again.path());
        folder.prepare().unwrap();
        std::fs::copy(path, folder.file(*step)).unwrap();
        for file in ["metrics.jsonl", BEST_FILE, "metrics.csv"] {
            std::fs::copy(dir.path().join(file), again.path().join(file)).unwrap();
        }
        go_on(again.path(), &make, |c| c, &mut Nothing).unwrap();
        same(&files(again.path()), &want, &format!("from step {step}"));
    }
}

/// Stops at the second batch of the validation of an epoch.
struct StopInValidation(usize, usize);

impl Callback for StopInValidation {
    fn on_step_end(&mut self, _: &Trainer, report: &StepReport) -> kestrel_train::Result<Control> {
        self.1 = report.epoch;
        Ok(Control::Continue)
    }

    fn on_validation_batch(&mut self, done: usize, _: usize) -> kestrel_train::Result<Control> {
        Ok(if (self.1, done) == (self.0, 2) {
            Control::Stop
        } else {
            Control::Continue
        })
    }
}

#[test]
fn a_run_stopped_in_validation_goes_on_with_the_validation() {
    // With an average of the weights, which stands in the model's place while it is validated.
    for which in [0, 1] {
        let make = || logging(other(which));
        let want = straight(&make);
        let dir = tempfile::tempdir().unwrap();
        for epoch in [2, 5] {
            let trainer = go_on(dir.path(), &make, |c| c, &mut StopInValidation(epoch, 0)).unwrap();
            assert_eq!(trainer.progress().epoch, epoch - 1);
            assert!(trainer.progress().position.unwrap().trained);
        }
        go_on(dir.path(), &make, |c| c, &mut Nothing).unwrap();
        same(&files(dir.path()), &want, "stopped in validation");
    }
}

/// Batches whose samples are all damaged are left out, and counted in the place to go on from.
#[test]
fn a_run_that_leaves_batches_out_goes_on_at_the_right_one() {
    let images = || Arc::new(Torn(dataset(1, 27), vec![0, 1, 2, 3, 4, 5, 6, 7, 11]));
    let train = || {
        let config = LoaderConfig {
            batch_size: 4,
            seed: 5,
            bad_samples: BadSamplePolicy {
                on_bad_sample: OnBadSample::Skip,
                max_bad_fraction: 0.5,
            },
            ..LoaderConfig::default()
        };
        DataLoader::new(images(), presets::cifar_train(32).unwrap(), config).unwrap()
    };
    let make = || logging(trainer(3, 0.01));
    let dir = tempfile::tempdir().unwrap();
    go_on_with(dir.path(), &make, |c| c, &mut Nothing, &train()).unwrap();
    let want = files(dir.path());
    for step in [1, 2, 5, 6, 9] {
        let dir = tempfile::tempdir().unwrap();
        let trainer = go_on_with(dir.path(), &make, |c| c, &mut StopAtStep(step), &train()).unwrap();
        assert!(trainer.progress().position.unwrap().next_batch >= 3);
        go_on_with(dir.path(), &make, |c| c, &mut Nothing, &train()).unwrap();
        same(&files(dir.path()), &want, &format!("after step {step}"));
    }
}

/// The damaged samples that a run has skipped count on after a stop: the one that is too many is the same.
#[test]
fn a_resumed_run_bears_no_more_damaged_images_than_the_straight_one() {
    let train = || {
        let config = LoaderConfig {
            batch_size: 4,
            seed: 5,
            bad_samples: BadSamplePolicy {
                on_bad_sample: OnBadSample::Skip,
                max_bad_fraction: 0.1,
            },
            ..LoaderConfig::default()
        };
        let images = Arc::new(Torn(dataset(1, 20), vec![1, 7, 13]));
        DataLoader::new(images, presets::cifar_train(32).unwrap(), config).unwrap()
    };
    let make = || logging(trainer(1, 0.01));
    let end = |dir: &std::path::Path| match go_on_with(dir, &make, |c| c, &mut Nothing, &train()) {
        Err(Error::Data(error)) => error.to_string(),
        other => panic!("{:?}", other.map(|trainer| trainer.progress().clone())),
    };
    let straight = tempfile::tempdir().unwrap();
    let want = end(straight.path());
    assert!(want.contains("3 of the 20 samples"), "{want}");
    for step in [1, 2, 3] {
        let dir = tempfile::tempdir().unwrap();
        let trainer = go_on_with(dir.path(), &make, |c| c, &mut StopAtStep(step), &train()).unwrap();
        assert_eq!(trainer.progress().step, step);
        assert_eq!(end(dir.path()), want, "after step {step}");
    }
}

/// What a process that is killed leaves of its log is cut to the checkpoint, a torn line and all.
#[test]
fn a_log_beyond_the_checkpoint_or_torn_is_cut() {
    let want = straight(&forty_steps);
    let dir = tempfile::tempdir().unwrap();
    go_on(dir.path(), &forty_steps, |c| c, &mut StopAtStep(18)).unwrap();
    let log = MetricsLog::path(dir.path());
    let at_checkpoint = std::fs::read(&log).unwrap();
    let (_, whole) = &want[2];
    assert!(whole.starts_with(&at_checkpoint) && whole.len() > at_checkpoint.len() + 100);
    // Whatever of the lines after the checkpoint were written.
    for end in at_checkpoint.len()..=whole.len() {
        std::fs::write(&log, &whole[..end]).unwrap();
        let mut trainer = forty_steps();
        let newest = CheckpointFolder::of_run(dir.path()).newest().unwrap().unwrap();
        newest.checkpoint.restore(&mut trainer).unwrap();
        let header = RunHeader {
            name: "another".into(),
            model: String::new(),
            classes: Vec::new(),
            seed: 0,
            options: String::new(),
        };
        drop(MetricsLog::open(dir.path(), &header, trainer.progress()).unwrap());
        assert!(std::fs::read(&log).unwrap() == at_checkpoint, "{end}");
    }
    go_on(dir.path(), &forty_steps, |c| c, &mut Nothing).unwrap();
    same(&files(dir.path()), &want, "after cuts");
}

#[test]
fn early_stopping_ends_a_resumed_run_where_the_straight_one_ends() {
    let stopping = || EarlyStopping::new(Watched::ValLoss, 2);
    let make = || logging(trainer(10, 0.05));
    let dir = tempfile::tempdir().unwrap();
    let mut first = stopping();
    let epochs = go_on(dir.path(), &make, |c| c, &mut first).unwrap().progress().epoch;
    assert!(first.has_stopped() && epochs < 10, "{epochs}");
    let want = files(dir.path());
    // A run that has stopped stays so.
    let mut again = stopping();
    let trainer = go_on(dir.path(), &make, |c| c, &mut again).unwrap();
    assert!(again.has_stopped() && trainer.progress().epoch == epochs);
    same(&files(dir.path()), &want, "again");
    let dir = tempfile::tempdir().unwrap();
    go_on(dir.path(), &make, |c| c, &mut StopAtStep(6)).unwrap();
    go_on(dir.path(), &make, |c| c, &mut stopping()).unwrap();
    same(&files(dir.path()), &want, "resumed");
}

#[test]
fn a_time_limit_ends_the_run_with_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut limit = TimeLimit::new(std::time::Instant::now(), std::time::Duration::ZERO);
    let trainer = go_on(dir.path(), &forty_steps, |c| c, &mut limit).unwrap();
    assert!(limit.is_over());
    assert_eq!(trainer.progress().step, 1);
    go_on(dir.path(), &forty_steps, |c| c, &mut Nothing).unwrap();
    same(&files(dir.path()), &straight(&forty_steps), "after the limit");
}

/// Remembers the order of its hooks.
#[derive(Default)]
struct Hooks(Vec<String>);

impl Callback for Hooks {
    fn on_fit_start(&mut self, _: &Trainer) -> kestrel_train::Result<Control> {
        self.0.push("fit".into());
        Ok(Control::Continue)
    }

    fn on_step_end(&mut self, _: &Trainer, report: &StepReport) -> kestrel_train::Result<Control> {
        assert!(report.grad_norm.unwrap() > 0.0);
        self.0.push(format!("step {}", report.step));
        Ok(Control::Continue)
    }

    fn on_epoch_end(&mut self, _: &Trainer, r: &EpochReport, t: &EpochTiming) -> kestrel_train::Result<Control> {
        assert!(t.forward + t.backward + t.optimizer + t.load_wait <= t.train);
        assert!(t.forward > std::time::Duration::ZERO && t.images == 27);
        self.0.push(format!("epoch {}", r.epoch));
        Ok(Control::Stop)
    }

    fn on_fit_end(&mut self, _: &Trainer) -> kestrel_train::Result<()> {
        self.0.push("end".into());
        Ok(())
    }
}

#[test]
fn hooks_are_called_in_order() {
    let mut hooks = Hooks::default();
    let mut trainer = trainer(3, 0.01);
    trainer
        .fit(&loader(1, 27, true), &loader(2, 9, false), &mut [&mut hooks])
        .unwrap();
    assert_eq!(
        hooks.0,
        ["fit", "step 1", "step 2", "step 3", "step 4", "epoch 1", "end"]
    );
}
