//! What a step is made on: several batches as though they were one, and the soft targets of mixed images.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::pixels::Image;
use kestrel_data::transforms::{CutMix, MixUp, presets};
use kestrel_data::{BadSamplePolicy, Dataset, InMemory, OnBadSample};
use kestrel_kernels::SgdConfig;
use kestrel_kernels::tape::Tape;
use kestrel_models::{Mode, Model, Params};
use kestrel_train::loss::CrossEntropyLoss;
use kestrel_train::optim::Sgd;
use kestrel_train::{GradClip, Trainer, TrainerConfig};

use crate::toy_run::dataset;

/// A linear classifier: without batch norm, whose statistics are those of each batch.
struct Flat(Params, Var);

impl Flat {
    fn new() -> Self {
        let params = Params::new(0);
        let values: Vec<f64> = (0..3 * 3 * 32 * 32)
            .map(|i| (f64::from(i) * 0.7).sin() * 0.01)
            .collect();
        let init = Tensor::from_vec(values, (3, 3 * 32 * 32), &Device::Cpu).unwrap();
        params
            .var_builder(DType::F32, &Device::Cpu)
            .get((3, 3 * 32 * 32), "weight")
            .unwrap();
        let var = params.all()[0].1.clone();
        var.set(&init.to_dtype(DType::F32).unwrap()).unwrap();
        Self(params, var)
    }
}

impl Model for Flat {
    fn forward(&self, images: &Tensor, mode: Mode) -> kestrel_models::Result<Tensor> {
        mode.section(|tape: &mut Tape| {
            let x = tape.leaf(&images.flatten_from(1)?)?;
            tape.linear(&x, &self.1, None, false)
        })
    }

    fn params(&self) -> &Params {
        &self.0
    }

    fn num_classes(&self) -> usize {
        3
    }
}

/// A trainer of the linear classifier.
fn trainer(accumulation: usize, class_weights: Option<Vec<f64>>, label_smoothing: f64) -> Trainer {
    let model = Flat::new();
    let config = SgdConfig {
        lr: 0.01,
        momentum: 0.9,
        ..SgdConfig::default()
    };
    let sgd = Sgd::new(model.params().trainable(), config).unwrap();
    let trainer_config = TrainerConfig {
        epochs: 1,
        log_every: 0,
        seed: 5,
    };
    let clip = GradClip {
        max_norm: Some(5.0),
        max_value: Some(1.0),
    };
    let loss = CrossEntropyLoss::new(label_smoothing, class_weights).unwrap();
    Trainer::new(Box::new(model), Box::new(sgd), None, trainer_config)
        .with_accumulation(accumulation)
        .with_grad_clip(clip)
        .with_loss(Box::new(loss))
}

/// The weights after an epoch of 27 images, and the optimiser's steps.
fn weights(batch_size: usize, accumulation: usize, class_weights: Option<Vec<f64>>) -> (Tensor, u64) {
    let mut trainer = trainer(accumulation, class_weights, 0.1);
    let loader = DataLoader::new(
        dataset(1, 27),
        presets::cifar_eval().unwrap(),
        LoaderConfig {
            batch_size,
            shuffle: true,
            seed: 5,
            ..LoaderConfig::default()
        },
    );
    trainer.train_one_epoch(&loader.unwrap(), &mut []).unwrap();
    let weight = trainer.model().params().all()[0].1.as_detached_tensor();
    (weight, trainer.progress().step)
}

#[test]
fn accumulated_batches_are_the_large_batch() {
    for class_weights in [None, Some(vec![0.2, 1.0, 3.0])] {
        let large = weights(12, 1, class_weights.clone());
        // The last step has 3 images: one batch of 3, of three that might be.
        let small = weights(4, 3, class_weights);
        assert_eq!((large.1, small.1), (3, 3));
        let error = (&large.0 - &small.0)
            .unwrap()
            .abs()
            .unwrap()
            .max_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap();
        assert!(error < 1e-6, "{error}");
        let start = Flat::new().1.as_detached_tensor();
        let moved = (&large.0 - start)
            .unwrap()
            .abs()
            .unwrap()
            .max_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap();
        assert!(moved > 1e-4, "{moved}");
    }
}

/// Images of which some cannot be decoded.
pub(crate) struct Torn(pub(crate) Arc<InMemory>, pub(crate) Vec<usize>);

impl Dataset for Torn {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn classes(&self) -> &[String] {
        self.0.classes()
    }

    fn label(&self, index: usize) -> u32 {
        self.0.label(index)
    }

    fn image(&self, index: usize) -> kestrel_data::Result<Image<'_>> {
        if !self.1.contains(&index) {
            return self.0.image(index);
        }
        Err(kestrel_data::Error::CorruptImage {
            path: "torn".into(),
            reason: "cut".into(),
        })
    }

    fn fingerprint(&self) -> kestrel_data::Result<kestrel_data::Fingerprint> {
        self.0.fingerprint()
    }

    fn describe(&self) -> String {
        "torn".to_owned()
    }
}

/// The last batch has no good image and is never made; what was gathered before it must still move the weights.
#[test]
fn a_step_is_not_lost_where_the_last_batches_are_dropped() {
    let config = LoaderConfig {
        batch_size: 2,
        bad_samples: BadSamplePolicy {
            on_bad_sample: OnBadSample::Skip,
            max_bad_fraction: 0.5,
        },
        ..LoaderConfig::default()
    };
    let loader = DataLoader::new(
        Arc::new(Torn(dataset(1, 8), vec![6, 7])),
        presets::cifar_eval().unwrap(),
        config,
    )
    .unwrap();
    let mut trainer = trainer(2, None, 0.0);
    trainer.train_one_epoch(&loader, &mut []).unwrap();
    assert_eq!((trainer.progress().step, trainer.progress().samples_seen), (2, 6));
}

/// The loss of the first step on mixed images, and the accuracy, against plain loops over the loader's own batch.
#[test]
fn mixed_images_are_compared_with_their_soft_targets() {
    for cut in [false, true] {
        let transforms = presets::cifar_eval().unwrap();
        let transforms = if cut {
            transforms.then_on_batch(CutMix::new(1.0).unwrap())
        } else {
            transforms.then_on_batch(MixUp::new(1.0).unwrap())
        };
        let config = LoaderConfig {
            batch_size: 9,
            ..LoaderConfig::default()
        };
        let loader = DataLoader::new(dataset(1, 9), transforms, config).unwrap();
        let batch = loader.epoch(0).next().unwrap().unwrap();
        let logits = Flat::new().forward(&batch.images, Mode::Eval).unwrap();
        let logits = logits.to_vec2::<f32>().unwrap();
        let soft = batch.soft_targets.unwrap().to_vec2::<f32>().unwrap();
        assert!(
            soft.iter().flatten().any(|p| *p > 0.01 && *p < 0.99),
            "nothing was mixed"
        );

        let smoothing = 0.1;
        let (mut loss, mut correct) = (0.0, 0);
        for (logits, soft) in logits.iter().zip(&soft) {
            let logits: Vec<f64> = logits.iter().map(|v| f64::from(*v)).collect();
            let log_sum = logits.iter().map(|v| v.exp()).sum::<f64>().ln();
            for (logit, p) in logits.iter().zip(soft) {
                loss -= (f64::from(*p) * (1.0 - smoothing) + smoothing / 3.0) * (logit - log_sum) / 9.0;
            }
            let best = |row: Vec<f64>| (0..3).max_by(|a, b| row[*a].total_cmp(&row[*b]));
            correct += usize::from(best(logits) == best(soft.iter().map(|p| f64::from(*p)).collect()));
        }
        let trained = trainer(1, None, smoothing).train_one_epoch(&loader, &mut []).unwrap();
        let (got, accuracy) = (trained.loss, trained.accuracy);
        assert!((got - loss).abs() < 1e-5, "cut {cut}: {got} {loss}");
        assert!(
            (accuracy - correct as f64 / 9.0).abs() < 1e-12,
            "cut {cut}: {accuracy} {correct}"
        );
    }
}

/// As in PyTorch, the mean over images whose classes all weigh 0 is NaN. No learning rate mends that.
#[test]
fn a_batch_of_no_weight_ends_the_run_and_the_weights_are_named() {
    for (accumulation, deferred) in [(1, false), (2, false), (1, true)] {
        let config = LoaderConfig {
            batch_size: 1,
            ..LoaderConfig::default()
        };
        let loader = DataLoader::new(dataset(1, 3), presets::cifar_eval().unwrap(), config).unwrap();
        let mut trainer = trainer(accumulation, Some(vec![0.0, 1.0, 1.0]), 0.0).with_deferred_reads(deferred);
        let error = trainer.train_one_epoch(&loader, &mut []).unwrap_err();
        let kestrel_train::Error::NonFinite(found) = &error else {
            panic!("{error}")
        };
        assert!(found.loss.is_nan() && found.samples == [0]);
        assert!(error.to_string().contains("the weights of the classes"), "{error}");
    }
}
