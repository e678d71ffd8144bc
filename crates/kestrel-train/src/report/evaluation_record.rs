//! `evaluation.json`: what an evaluation found, as a run's folder keeps it.

use std::path::Path;

use kestrel_models::weights::ModelInfo;
use serde::{Deserialize, Serialize};

use super::record_file;
use crate::metrics::{ClassScores, ReliabilityBin};
use crate::predictor::temperature;
use crate::{Evaluation, Result};

/// The name of the file in a run's folder.
pub const EVALUATION_FILE: &str = "evaluation.json";

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// The images: `test`, `train`, `val`.
    pub split: String,
    /// How many there were.
    pub images: u64,
    /// Cross-entropy averaged over batches, at temperature 1, as in training.
    #[serde(with = "crate::number")]
    pub loss: f64,
    /// Accuracy, in `[0, 1]`.
    pub top1: f64,
    /// The share of images whose class is among the five likeliest, where there are more than five.
    #[serde(default)]
    pub top5: Option<f64>,
    /// The expected calibration error of the probabilities at `temperature`, in `[0, 1]`.
    pub ece: f64,
    /// The same at temperature 1.
    #[serde(default)]
    pub uncalibrated_ece: Option<f64>,
    /// What logits are divided by, as the weight file says; fitted on validation images.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// Each class.
    pub per_class: Vec<ClassRecord>,
    /// How often a class was predicted for a target: a row for each target.
    pub confusion: Vec<Vec<u64>>,
    /// Confidence against accuracy at `temperature`.
    pub reliability: Vec<ReliabilityBin>,
}

/// One class's scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassRecord {
    /// Its name.
    pub class: String,
    /// Its scores.
    #[serde(flatten)]
    pub scores: ClassScores,
}

impl EvaluationRecord {
    /// What an evaluation on a split found.
    pub fn new(evaluation: &Evaluation, info: &ModelInfo, split: &str) -> Self {
        let reliability = evaluation.reliability(temperature(info));
        let scores = evaluation.class_scores();
        let name = |at: usize| info.classes.get(at).cloned().unwrap_or_else(|| format!("class {at}"));
        Self {
            split: split.to_owned(),
            images: evaluation.confusion.total(),
            loss: evaluation.loss,
            top1: evaluation.accuracy(),
            top5: evaluation.top5(),
            ece: reliability.ece(),
            uncalibrated_ece: Some(evaluation.reliability(1.0).ece()),
            temperature: info.temperature,
            per_class: scores
                .into_iter()
                .enumerate()
                .map(|(at, scores)| ClassRecord {
                    class: name(at),
                    scores,
                })
                .collect(),
            confusion: evaluation.confusion.rows().map(<[u64]>::to_vec).collect(),
            reliability: reliability.bins,
        }
    }

    /// The names of the classes, by index.
    pub fn classes(&self) -> impl ExactSizeIterator<Item = &str> {
        self.per_class.iter().map(|class| class.class.as_str())
    }

    /// Writes the record into a run's folder.
    ///
    /// # Errors
    /// [`crate::Error::Write`].
    pub fn save(&self, folder: &Path) -> Result<()> {
        record_file::save(self, &folder.join(EVALUATION_FILE))
    }

    /// Reads the record of a run's folder; `None` where there is none.
    ///
    /// # Errors
    /// [`crate::Error::Read`], [`crate::Error::InvalidRecord`].
    pub fn load(folder: &Path) -> Result<Option<Self>> {
        record_file::load(&folder.join(EVALUATION_FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_is_none_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let record = EvaluationRecord {
            split: "test".to_owned(),
            images: 1,
            loss: f64::NAN,
            top1: 0.5,
            top5: None,
            ece: 0.0,
            uncalibrated_ece: None,
            temperature: None,
            per_class: Vec::new(),
            confusion: Vec::new(),
            reliability: Vec::new(),
        };
        record.save(dir.path()).unwrap();
        let loaded = EvaluationRecord::load(dir.path()).unwrap().unwrap();
        assert!(loaded.loss.is_nan() && loaded.top1 == 0.5);
    }
}
