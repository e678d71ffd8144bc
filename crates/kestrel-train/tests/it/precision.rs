//! Training under autocast: the scale against PyTorch's, skipped steps, and runs that go on exactly.

use candle_core::DType;
use kestrel_kernels::autocast::Precision;
use kestrel_train::lr_finder::{LrFinderConfig, find_lr};
use kestrel_train::{Callback, Control, Error, GradScaler, GradScalerConfig, StepReport, Trainer};

use crate::golden::golden;
use crate::toy_run::{Broken, Nothing, go_on, loader, logging, other, same, stopped_at, straight, trainer};

#[test]
fn the_scale_goes_as_pytorchs() {
    let golden = golden("grad_scaler");
    let default = GradScalerConfig::default();
    for (case, config) in [
        ("defaults", default),
        (
            "often",
            GradScalerConfig {
                growth_interval: 3,
                ..default
            },
        ),
        (
            "odd",
            GradScalerConfig {
                init_scale: 1000.0,
                growth_factor: 1.7,
                backoff_factor: 0.3,
                growth_interval: 2,
            },
        ),
        (
            "bounded",
            GradScalerConfig {
                init_scale: 2f64.powi(125),
                growth_interval: 1,
                ..default
            },
        ),
    ] {
        let read = |part: &str| {
            golden[&format!("{case}.{part}")]
                .to_dtype(DType::F64)
                .unwrap()
                .to_vec1::<f64>()
                .unwrap()
        };
        let mut scaler = GradScaler::new(config).unwrap();
        let expected = read("scales").into_iter().zip(read("growth_trackers"));
        for (step, (infinite, (scale, tracker))) in read("infinite").into_iter().zip(expected).enumerate() {
            scaler.update(infinite == 0.0);
            assert_eq!(
                (scaler.scale(), scaler.growth_tracker() as f64),
                (scale, tracker),
                "{case}, step {step}"
            );
        }
        assert_eq!(scaler.skipped() as f64, read("infinite").iter().sum::<f64>());
    }
}

fn scaler(init_scale: f64, growth_interval: u64) -> GradScaler {
    let config = GradScalerConfig {
        init_scale,
        growth_interval,
        ..GradScalerConfig::default()
    };
    GradScaler::new(config).unwrap()
}

fn weights(trainer: &Trainer) -> Vec<Vec<f32>> {
    let all = trainer.optimizer().params();
    all.iter()
        .map(|(_, var)| var.flatten_all().unwrap().to_vec1().unwrap())
        .collect()
}

/// What each step was told as, and the weights after it.
#[derive(Default)]
struct Steps(Vec<Step>);

/// Whether it was skipped, the gradients' norm, the steps made, and the weights.
type Step = (bool, Option<f64>, u64, Vec<Vec<f32>>);

impl Callback for Steps {
    fn on_step_end(&mut self, trainer: &Trainer, report: &StepReport) -> kestrel_train::Result<Control> {
        let step = trainer.progress().step;
        self.0.push((report.skipped, report.grad_norm, step, weights(trainer)));
        Ok(Control::Continue)
    }
}

#[test]
fn a_step_whose_gradients_overflow_is_skipped_and_the_scale_comes_down() {
    let run = |precision: Precision, scaler: Option<GradScaler>, accumulation: usize| {
        let mut trainer = trainer(6, 0.01)
            .with_precision(precision)
            .with_accumulation(accumulation);
        if let Some(scaler) = scaler {
            trainer = trainer.with_grad_scaler(scaler);
        }
        let mut steps = Steps::default();
        trainer
            .fit(&loader(1, 27, true), &loader(2, 9, false), &mut [&mut steps])
            .unwrap();
        (trainer, steps.0)
    };
    for accumulation in [1, 2] {
        let start = weights(&trainer(6, 0.01));
        let (found, steps) = run(Precision::F16, Some(scaler(2f64.powi(28), 2000)), accumulation);
        let skipped = steps.iter().filter(|(skipped, ..)| *skipped).count();
        assert!((3..15).contains(&skipped), "{skipped} of {}", steps.len());
        assert_eq!(found.grad_scaler().unwrap().skipped() as usize, skipped);
        assert_eq!(found.grad_scaler().unwrap().scale(), 2f64.powi(28 - skipped as i32));
        assert_eq!(found.progress().step as usize, 24 / accumulation - skipped);
        let (mut before, mut made) = (&start, 0);
        for (skipped, norm, step, after) in &steps {
            if *skipped {
                assert!(
                    norm.is_none() && *step == made && after == before,
                    "a skipped step moves nothing"
                );
            } else if let Some(norm) = norm {
                assert!(norm.is_finite() && *step == made + 1 && after != before);
            }
            (before, made) = (after, *step);
        }
        // Neither f32 nor bf16 scales a loss.
        for precision in [Precision::F32, Precision::Bf16] {
            let (found, steps) = run(precision, None, accumulation);
            assert!(found.grad_scaler().is_none() && steps.iter().all(|(skipped, ..)| !skipped));
            assert_eq!(found.progress().step as usize, 24 / accumulation);
        }
    }
}

/// A power of two scales without rounding, but where `f16` would lose small gradients.
#[test]
fn the_scale_is_out_of_the_gradients_before_they_are_clipped() {
    let norms = |init_scale| {
        let mut trainer = trainer(1, 0.01)
            .with_precision(Precision::F16)
            .with_grad_scaler(scaler(init_scale, 2000));
        let mut steps = Steps::default();
        trainer
            .fit(&loader(1, 27, true), &loader(2, 9, false), &mut [&mut steps])
            .unwrap();
        steps
            .0
            .into_iter()
            .map(|(_, norm, ..)| norm.unwrap())
            .collect::<Vec<_>>()
    };
    let (small, large) = (norms(256.0), norms(4096.0));
    for (small, large) in small.iter().zip(&large) {
        assert!((small / large - 1.0).abs() < 1e-2, "{small} {large}");
    }
}

#[test]
fn gradients_that_no_scale_mends_stop_the_run() {
    // Of 2^10, 11 halvings come below 1. A loss that is none has nothing to do with the scale.
    for (precision, gradient_alone, borne) in [
        (Precision::F16, true, 10),
        (Precision::F16, false, 0),
        (Precision::Bf16, true, 0),
    ] {
        let broken = Broken::new(5..usize::MAX, gradient_alone);
        let mut trainer = trainer(10, 0.01).with_precision(precision).with_loss(Box::new(broken));
        if precision == Precision::F16 {
            trainer = trainer.with_grad_scaler(scaler(2f64.powi(10), 2000));
        }
        let error = trainer
            .fit(&loader(1, 27, true), &loader(2, 9, false), &mut [])
            .unwrap_err();
        let Error::NonFinite(found) = &error else {
            panic!("{error}")
        };
        assert_eq!((found.epoch - 1) * 4 + found.step, 5 + borne + 1, "{error}");
        assert_eq!(found.steps_made, 5);
    }
}

#[test]
fn runs_of_every_precision_go_on_exactly() {
    let scaled = |trainer: Trainer| {
        // Skips at first, and grows and skips again.
        trainer
            .with_precision(Precision::F16)
            .with_grad_scaler(scaler(2f64.powi(18), 3))
    };
    let f16 = || scaled(logging(trainer(5, 0.01)));
    let f16_with_an_average = || scaled(logging(other(0))).with_accumulation(2);
    let bf16 = || logging(trainer(5, 0.01)).with_precision(Precision::Bf16);
    let makes: [&dyn Fn() -> Trainer; 3] = [&f16, &f16_with_an_average, &bf16];
    let mut weights = Vec::new();
    for (i, make) in makes.into_iter().enumerate() {
        let want = straight(make);
        for steps in [&[1][..], &[2, 4]] {
            same(
                &stopped_at(steps, make),
                &want,
                &format!("run {i}, stopped after {steps:?}"),
            );
        }
        weights.push(want);
    }
    let text = |i: usize| String::from_utf8(weights[i][2].1.clone()).unwrap();
    let skipped = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        (line["loss_scale"].as_f64(), line["skipped_steps"].as_u64())
    };
    let (scale, count) = skipped(text(0).lines().last().unwrap());
    assert!(scale.unwrap() < 2f64.powi(18) && count.unwrap() > 0);
    assert_eq!(skipped(text(2).lines().last().unwrap()), (None, None));
    assert!(
        weights[2][0] != straight(&|| logging(trainer(5, 0.01)))[0],
        "nothing was rounded"
    );
}

#[test]
fn a_checkpoint_with_a_scale_is_for_a_run_with_one() {
    let dir = tempfile::tempdir().unwrap();
    let f16 = || trainer(1, 0.01).with_precision(Precision::F16);
    go_on(dir.path(), &f16, |c| c, &mut Nothing).unwrap();
    let error = go_on(dir.path(), &|| trainer(2, 0.01), |c| c, &mut Nothing)
        .err()
        .unwrap();
    assert!(
        matches!(&error, Error::CheckpointMismatch { reason } if reason.contains("scales its loss")),
        "{error}"
    );
}

#[test]
fn the_range_test_scales_its_loss_and_leaves_the_scale_as_it_was() {
    let mut found = trainer(1, 0.01)
        .with_precision(Precision::F16)
        .with_grad_scaler(scaler(2f64.powi(20), 2000));
    let config = LrFinderConfig {
        num_steps: 25,
        ..LrFinderConfig::default()
    };
    let curve = find_lr(&mut found, &loader(1, 27, true), &config).unwrap();
    assert!(curve.points.len() >= 10, "{curve:?}");
    assert_eq!(
        (
            found.grad_scaler().unwrap().scale(),
            found.grad_scaler().unwrap().skipped()
        ),
        (2f64.powi(20), 0)
    );
}
