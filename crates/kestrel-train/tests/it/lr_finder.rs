//! The learning-rate range test.

use kestrel_train::lr_finder::{LrFinderConfig, find_lr};

use crate::toy_run::{loader, trainer};

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
