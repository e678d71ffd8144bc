//! The learning-rate range test.

use candle_core::{DType, Device};
use kestrel_kernels::SgdConfig;
use kestrel_train::lr_finder::{LrFinderConfig, find_lr};
use kestrel_train::optim::Sgd;
use kestrel_train::{GradClip, Trainer, TrainerConfig};

use crate::toy_run::{info, loader, trainer};

#[test]
fn the_rate_rises_and_the_run_is_as_before() {
    let mut found = trainer(1, 0.01);
    let weights = |trainer: &kestrel_train::Trainer| {
        let dict = trainer.model().params().state_dict().unwrap();
        let values = dict
            .values()
            .map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        values.collect::<Vec<_>>()
    };
    let before = weights(&found);
    let config = LrFinderConfig {
        num_steps: 25,
        ..LrFinderConfig::default()
    };
    let curve = find_lr(&mut found, &loader(1, 27, true), &config).unwrap();
    assert!(curve.points.len() >= 10 && curve.points.len() <= 25, "{curve:?}");
    assert!(curve.points.windows(2).all(|p| p[0].lr < p[1].lr));
    assert_eq!(curve.points[0].lr, 1e-6);
    assert!(weights(&found) == before);
    assert_eq!(found.optimizer().lr(), 0.01);
    assert_eq!(found.progress().step, 0);
    for bad in [
        LrFinderConfig {
            start_lr: 0.0,
            ..config
        },
        LrFinderConfig { end_lr: 1e-9, ..config },
        LrFinderConfig { num_steps: 3, ..config },
    ] {
        assert!(find_lr(&mut found, &loader(1, 27, true), &bad).is_err());
    }
}

#[test]
fn gradients_are_clipped_as_in_a_run() {
    let config = LrFinderConfig {
        num_steps: 25,
        ..LrFinderConfig::default()
    };
    let losses = |max_norm| {
        let clip = GradClip {
            max_norm,
            max_value: None,
        };
        let model = info(2).model.build(5, DType::F32, &Device::Cpu).unwrap();
        let sgd = Sgd::new(model.params().trainable(), SgdConfig::default()).unwrap();
        let run = TrainerConfig {
            epochs: 1,
            log_every: 0,
            seed: 5,
        };
        let mut trainer = Trainer::new(model, Box::new(sgd), None, run).with_grad_clip(clip);
        let curve = find_lr(&mut trainer, &loader(1, 27, true), &config).unwrap();
        curve.points.iter().map(|point| point.loss).collect::<Vec<_>>()
    };
    // So little that no rate moves anything.
    let (free, held) = (losses(None), losses(Some(1e-30)));
    assert_eq!(held.len(), 25);
    assert_ne!(free.last(), held.last());
    assert!(held[24] < 1.2 * held[0], "{held:?}");
}
