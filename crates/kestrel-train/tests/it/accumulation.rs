//! A step on several batches is the step on one large batch, to rounding.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::transforms::presets;
use kestrel_kernels::SgdConfig;
use kestrel_kernels::tape::Tape;
use kestrel_models::{Mode, Model, Params};
use kestrel_train::loss::CrossEntropyLoss;
use kestrel_train::optim::Sgd;
use kestrel_train::{GradClip, Trainer, TrainerConfig};

use crate::resume::dataset;

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

/// The weights after an epoch of 27 images, and the optimiser's steps.
fn weights(batch_size: usize, accumulation: usize, class_weights: Option<Vec<f64>>) -> (Tensor, u64) {
    let model = Flat::new();
    let params: BTreeMap<_, _> = model.params().trainable().into_iter().collect();
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
    let mut trainer = Trainer::new(Box::new(model), Box::new(sgd), None, trainer_config)
        .with_accumulation(accumulation)
        .with_grad_clip(clip)
        .with_loss(Box::new(CrossEntropyLoss::new(0.1, class_weights).unwrap()));
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
    (params["weight"].as_detached_tensor(), trainer.progress().step)
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
