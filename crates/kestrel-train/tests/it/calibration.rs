//! Top-k, scores of classes, calibration and temperature against PyTorch's and scikit-learn's.

use std::collections::HashMap;

use candle_core::{DType, Tensor};
use kestrel_train::metrics::{
    ConfusionMatrix, Logits, Reliability, argmax, class_scores, fit_temperature, top_k_accuracy,
};

use crate::golden::golden;

struct Case {
    golden: HashMap<String, Tensor>,
    logits: Logits,
    confusion: ConfusionMatrix,
}

/// The golden logits, added in batches.
fn case() -> Case {
    let golden = golden("calibration");
    let targets: Vec<u32> = golden["targets"].to_dtype(DType::U32).unwrap().to_vec1().unwrap();
    let (images, classes) = golden["logits"].dims2().unwrap();
    let mut logits = Logits::new(classes);
    let mut confusion = ConfusionMatrix::new(classes);
    for start in (0..images).step_by(150) {
        let count = 150.min(images - start);
        let batch = golden["logits"].narrow(0, start, count).unwrap();
        let indices: Vec<usize> = (start..start + count).collect();
        let targets = &targets[start..start + count];
        logits.add(&batch, targets, &indices).unwrap();
        confusion.add(&argmax(&batch).unwrap(), targets);
    }
    Case {
        golden,
        logits,
        confusion,
    }
}

impl Case {
    fn values(&self, name: &str) -> Vec<f64> {
        let tensor = self.golden[name].to_dtype(DType::F64).unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }
}

#[track_caller]
fn close(got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance, "{got} {want}");
}

#[test]
fn top_k_is_torchs() {
    let case = case();
    for k in [1, 2, 5, 8] {
        let want = case.values(&format!("top{k}"))[0];
        close(top_k_accuracy(&case.logits, k), want, 1e-15);
    }
}

#[test]
fn scores_of_classes_are_scikit_learns() {
    let case = case();
    let scores = class_scores(&case.confusion);
    assert_eq!(scores.len(), 8);
    for (class, scores) in scores.iter().enumerate() {
        close(scores.precision, case.values("precision")[class], 1e-15);
        close(scores.recall, case.values("recall")[class], 1e-15);
        close(scores.f1, case.values("f1")[class], 1e-15);
        assert_eq!(scores.support as f64, case.values("support")[class]);
    }
}

#[test]
fn temperature_is_what_l_bfgs_finds() {
    let case = case();
    let temperature = fit_temperature(&case.logits).unwrap();
    let want = case.values("temperature")[0];
    assert!(want > 1.5, "the golden logits are too sure of themselves");
    close(temperature, want, 1e-6);
}

#[test]
fn calibration_error_and_bins_are_the_reference_codes() {
    let case = case();
    for (name, temperature) in [("raw", 1.0), ("scaled", case.values("temperature")[0])] {
        let reliability = Reliability::new(&case.logits, temperature);
        close(reliability.ece(), case.values(&format!("{name}.ece"))[0], 1e-12);
        let want = case.values(&format!("{name}.bins"));
        assert_eq!(reliability.bins.len(), 15);
        for (bin, want) in reliability.bins.iter().zip(want.chunks_exact(3)) {
            assert_eq!(bin.count as f64, want[0]);
            close(bin.confidence, want[1], 1e-12);
            close(bin.accuracy, want[2], 1e-12);
        }
    }
    assert!(case.values("scaled.ece")[0] < case.values("raw.ece")[0]);
}
