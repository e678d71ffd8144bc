//! Top-1 accuracy.

use candle_core::{D, DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::Result;

/// The index of the largest logit of each row.
///
/// # Shapes
/// `[N, C]` → N indices. Ties go to the lowest index, as in PyTorch.
///
/// # Errors
/// Where a device fails.
pub fn argmax(logits: &Tensor) -> Result<Vec<u32>> {
    Ok(logits
        .argmax(D::Minus1)?
        .to_dtype(DType::U32)?
        .to_device(&Device::Cpu)?
        .to_vec1::<u32>()?)
}

/// The share of samples whose largest logit is the target's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    correct: u64,
    total: u64,
}

impl Accuracy {
    /// Adds a batch of predictions.
    pub fn add(&mut self, predicted: &[u32], targets: &[u32]) {
        self.correct += predicted.iter().zip(targets).filter(|(p, t)| p == t).count() as u64;
        self.total += targets.len() as u64;
    }

    /// Adds a batch of `total` samples of which `correct` were right.
    pub fn add_counts(&mut self, correct: u64, total: u64) {
        self.correct += correct;
        self.total += total;
    }

    /// In `[0, 1]`; 0 where nothing was added.
    pub fn value(&self) -> f64 {
        if self.total == 0 {
            0.0
        } else {
            self.correct as f64 / self.total as f64
        }
    }

    /// How many samples were added.
    pub fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lowest_index() {
        let logits = Tensor::new(&[[1f32, 3.0, 3.0], [-1.0, -2.0, -1.0]], &Device::Cpu).unwrap();
        assert_eq!(argmax(&logits).unwrap(), [1, 0]);
    }

    #[test]
    fn counts_over_batches() {
        let mut accuracy = Accuracy::default();
        accuracy.add(&[1, 2, 3], &[1, 2, 0]);
        accuracy.add(&[4], &[0]);
        assert_eq!((accuracy.value(), accuracy.total()), (0.5, 4));
    }
}
