//! Numbers that are read some steps later, as on a GPU: the same run, and the same end of one whose numbers are none.

use kestrel_kernels::autocast::Precision;
use kestrel_models::StateDict;
use kestrel_train::checkpoint::Every;
use kestrel_train::{Callback, Control, Error, GradClip, StepReport, Trainer};

use crate::toy_run::{Broken, Nothing, files, go_on, loader, logging, other, same, stopped_at, straight, trainer};

#[test]
fn a_run_that_reads_later_is_the_run_that_reads_at_once() {
    let clip = |trainer: Trainer| {
        trainer.with_grad_clip(GradClip {
            max_value: Some(0.05),
            max_norm: Some(0.5),
        })
    };
    let plain = || logging(trainer(4, 0.01));
    let clipped = || clip(logging(trainer(4, 0.01)));
    let accumulated = || clip(logging(trainer(4, 0.01))).with_accumulation(3);
    let bf16 = || logging(trainer(4, 0.01)).with_precision(Precision::Bf16);
    let others = [0, 1, 2, 3].map(|which| move || logging(other(which)));
    let mut makes: Vec<&dyn Fn() -> Trainer> = vec![&plain, &clipped, &accumulated, &bf16];
    makes.extend(others.iter().map(|make| make as &dyn Fn() -> Trainer));
    for (i, make) in makes.into_iter().enumerate() {
        let want = straight(make);
        let deferred = || make().with_deferred_reads(true);
        same(&straight(&deferred), &want, &format!("run {i}"));
        same(&stopped_at(&[1, 5], &deferred), &want, &format!("run {i}, stopped"));
        let dir = tempfile::tempdir().unwrap();
        let every = |c: kestrel_train::checkpoint::Checkpointer| c.every(Some(Every::Steps(2)));
        go_on(dir.path(), &deferred, every, &mut Nothing).unwrap();
        same(&files(dir.path()), &want, &format!("run {i}, saved on the way"));
    }
}

/// Counts the steps that it hears of.
#[derive(Default)]
struct Heard(usize, usize);

impl Callback for Heard {
    fn on_step_end(&mut self, _: &Trainer, report: &StepReport) -> kestrel_train::Result<Control> {
        self.0 += 1;
        self.1 += usize::from(report.settled);
        Ok(Control::Continue)
    }
}

fn tensors(trainer: &Trainer) -> Vec<(String, Vec<u32>)> {
    let params = trainer.optimizer().params().into_iter();
    let params: StateDict = params.map(|(name, var)| (name, var.as_detached_tensor())).collect();
    let all = params.into_iter().chain(trainer.optimizer().state_dict().unwrap());
    all.filter(|(_, tensor)| tensor.dtype().is_float())
        .map(|(name, tensor)| {
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            (name, values.into_iter().map(f32::to_bits).collect())
        })
        .collect()
}

#[test]
fn numbers_that_are_none_move_nothing_and_end_the_run_later_with_the_same_words() {
    for gradient_alone in [true, false] {
        for clip in [None, Some(0.5)] {
            let run = |deferred: bool| {
                let broken = Broken::new(5..6, gradient_alone);
                let clip = GradClip {
                    max_norm: clip,
                    max_value: clip,
                };
                // Nothing asks for the numbers before the epoch's end.
                let mut trainer = trainer(3, 0.01)
                    .with_loss(Box::new(broken))
                    .with_grad_clip(clip)
                    .with_deferred_reads(deferred);
                let mut heard = Heard::default();
                let error = trainer
                    .fit(&loader(1, 27, true), &loader(2, 9, false), &mut [&mut heard])
                    .unwrap_err();
                let Error::NonFinite(found) = &error else {
                    panic!("{error}")
                };
                assert_eq!((found.epoch, found.step, found.steps_made), (2, 2, 5));
                assert_eq!(found.samples, loader(1, 27, true).order(1)[8..16]);
                let json = found.to_json().to_string();
                (error.to_string(), json, tensors(&trainer), heard)
            };
            let (direct, deferred) = (run(false), run(true));
            assert_eq!(deferred.0, direct.0);
            assert_eq!(deferred.1, direct.1);
            assert!(deferred.2 == direct.2, "a weight or a moment was moved");
            // The first batch of an epoch is looked at, and then none until its end.
            assert_eq!((direct.3.0, direct.3.1), (5, 5));
            assert_eq!((deferred.3.0, deferred.3.1), (8, 2));
        }
    }
}

#[test]
fn where_the_loss_is_scaled_each_step_is_waited_for() {
    let mut trainer = trainer(1, 0.01)
        .with_precision(Precision::F16)
        .with_deferred_reads(true);
    let mut heard = Heard::default();
    trainer
        .fit(&loader(1, 27, true), &loader(2, 9, false), &mut [&mut heard])
        .unwrap();
    assert_eq!((heard.0, heard.1), (4, 4));
}
