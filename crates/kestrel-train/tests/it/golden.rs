//! Scheduler and metrics against PyTorch's.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use kestrel_kernels::cross_entropy;
use kestrel_train::lr_scheduler::{
    Event, LrScheduler, PlateauMode, ReduceLROnPlateau, ReduceLROnPlateauConfig as Config, ThresholdMode,
};
use kestrel_train::metrics::{ConfusionMatrix, Mean, argmax};

use crate::manifest_dir::manifest_dir;

pub(crate) fn golden(name: &str) -> HashMap<String, Tensor> {
    let path = manifest_dir().join(format!("tests/golden/{name}.safetensors"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

#[test]
fn reduce_on_plateau_gives_pytorchs_rate_after_every_epoch() {
    let golden = golden("reduce_on_plateau");
    let reference = Config::default();
    let options = [
        ("reference", reference),
        (
            "max_abs",
            Config {
                mode: PlateauMode::Max,
                factor: 0.5,
                patience: 2,
                threshold: 0.05,
                threshold_mode: ThresholdMode::Abs,
                ..reference
            },
        ),
        (
            "max_rel",
            Config {
                mode: PlateauMode::Max,
                factor: 0.5,
                patience: 0,
                threshold: 0.1,
                ..reference
            },
        ),
        (
            "cooldown",
            Config {
                factor: 0.3,
                patience: 1,
                cooldown: 3,
                threshold_mode: ThresholdMode::Abs,
                threshold: 1e-3,
                ..reference
            },
        ),
        (
            "floor",
            Config {
                patience: 0,
                min_lr: 1e-3,
                eps: 1e-4,
                ..reference
            },
        ),
        (
            "eps",
            Config {
                factor: 0.99,
                patience: 0,
                eps: 0.02,
                ..reference
            },
        ),
    ];
    let mut compared = 0;
    for (name, metrics) in &golden {
        let Some(sequence) = name.strip_prefix("metric.") else {
            continue;
        };
        let metrics = metrics.to_vec1::<f64>().unwrap();
        for (option, config) in &options {
            let want = golden[&format!("lr.{option}.{sequence}")].to_vec1::<f64>().unwrap();
            let mut scheduler = ReduceLROnPlateau::new(*config).unwrap();
            let mut lrs = [1.0];
            for (epoch, (metric, want)) in metrics.iter().zip(want).enumerate() {
                scheduler.step(Event::Epoch { val_loss: *metric }, &mut lrs);
                let lr = lrs[0];
                assert_eq!(
                    lr.to_bits(),
                    want.to_bits(),
                    "{option} on {sequence}, epoch {epoch}: {lr} {want}"
                );
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 9 * 6 * 40);
}

#[test]
fn metrics_of_given_logits_are_pytorchs() {
    let golden = golden("metrics");
    let logits = &golden["logits"];
    let targets = golden["targets"].to_dtype(DType::U32).unwrap();
    let predicted = argmax(logits).unwrap();
    let want: Vec<u32> = golden["predicted"].to_dtype(DType::U32).unwrap().to_vec1().unwrap();
    assert_eq!(predicted, want);

    let targets_vec = targets.to_vec1::<u32>().unwrap();
    let mut confusion = ConfusionMatrix::new(5);
    let mut loss = Mean::default();
    for (start, len) in [(0, 25), (25, 25), (50, 10)] {
        confusion.add(&predicted[start..start + len], &targets_vec[start..start + len]);
        let batch = cross_entropy(
            &logits.narrow(0, start, len).unwrap(),
            &targets.narrow(0, start, len).unwrap(),
        );
        loss.add(f64::from(batch.unwrap().to_scalar::<f32>().unwrap()));
    }
    let want = golden["confusion"].to_vec2::<i64>().unwrap();
    for (target, row) in want.iter().enumerate() {
        for (class, count) in row.iter().enumerate() {
            assert_eq!(confusion.count(target, class), *count as u64);
        }
    }
    assert_eq!(confusion.accuracy(), golden["accuracy"].to_vec1::<f64>().unwrap()[0]);
    let want = f64::from(golden["loss"].to_vec1::<f32>().unwrap()[0]);
    assert!((loss.value() / want - 1.0).abs() < 1e-6, "{} {want}", loss.value());
}
