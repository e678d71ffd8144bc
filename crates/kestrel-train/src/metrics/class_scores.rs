//! Precision, recall and F1 of each class.

use serde::{Deserialize, Serialize};

use super::ConfusionMatrix;

/// How well one class is told from the others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// Images of the class.
    pub support: u64,
    /// Of the images that were taken for the class, the share that is of it; 0 where none was.
    pub precision: f64,
    /// Of the images of the class, the share that was taken for it; 0 where there is none.
    pub recall: f64,
    /// The harmonic mean of precision and recall; 0 where both are.
    pub f1: f64,
}

/// Each class's scores: with true positives `tp`, false positives `fp` and false negatives `fn`, precision is
/// `tp / (tp + fp)`, recall `tp / (tp + fn)`, F1 `2 tp / (2 tp + fp + fn)`; 0 where a denominator is 0.
///
/// # Source
/// scikit-learn's `precision_recall_fscore_support(zero_division=0)`, proved by `tests/golden/calibration.safetensors`.
pub fn class_scores(confusion: &ConfusionMatrix) -> Vec<ClassScores> {
    let scores = |class| {
        let hits = confusion.count(class, class) as f64;
        let (support, predicted) = (confusion.support(class), confusion.predicted(class));
        let share = |whole: f64| if whole > 0.0 { hits / whole } else { 0.0 };
        ClassScores {
            support,
            precision: share(predicted as f64),
            recall: share(support as f64),
            f1: share((support + predicted) as f64 / 2.0),
        }
    };
    (0..confusion.num_classes()).map(scores).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_without_images_or_predictions_scores_0() {
        let mut confusion = ConfusionMatrix::new(3);
        confusion.add(&[0, 0, 0, 1], &[0, 0, 1, 0]);
        let scores = class_scores(&confusion);
        assert_eq!(scores[0].support, 3);
        assert_eq!([scores[0].precision, scores[0].recall, scores[0].f1], [2.0 / 3.0; 3]);
        assert_eq!([scores[1].precision, scores[1].recall, scores[1].f1], [0.0; 3]);
        assert_eq!((scores[2].support, scores[2].f1), (0, 0.0));
    }
}
