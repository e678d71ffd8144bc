//! Calibration: whether of the images that a model is 80% sure of, 80% are right.

use serde::{Deserialize, Serialize};

use super::Logits;

/// Bins that `[0, 1]` is cut into, as in the paper.
pub const NUM_BINS: usize = 15;

/// The images whose confidence lies in `(lower, upper]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// The confidence above which the bin begins.
    pub lower: f64,
    /// The confidence at which it ends.
    pub upper: f64,
    /// How many images.
    pub count: u64,
    /// Their mean confidence; 0 where there are none.
    pub confidence: f64,
    /// The share of them that is right; 0 where there are none.
    pub accuracy: f64,
}

/// Confidence against accuracy, in bins of equal width.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// From 0 to 1.
    pub bins: Vec<ReliabilityBin>,
}

impl Reliability {
    /// Sorts a split's predictions into [`NUM_BINS`] bins by their confidence: the largest probability of softmax over
    /// `temperature`.
    pub fn new(logits: &Logits, temperature: f64) -> Self {
        let mut sums = [(0u64, 0.0, 0u64); NUM_BINS];
        for predicted in logits.predictions(temperature) {
            // A confidence on an edge is the lower bin's; one that is not a number is in no bin.
            let Some(at) = (0..NUM_BINS).find(|bin| predicted.confidence <= edge(bin + 1)) else {
                continue;
            };
            sums[at].0 += 1;
            sums[at].1 += predicted.confidence;
            sums[at].2 += u64::from(predicted.is_right());
        }
        let bins = sums.iter().enumerate().map(|(at, &(count, confidence, right))| {
            let images = count.max(1) as f64;
            ReliabilityBin {
                lower: edge(at),
                upper: edge(at + 1),
                count,
                confidence: confidence / images,
                accuracy: right as f64 / images,
            }
        });
        Self { bins: bins.collect() }
    }

    /// The expected calibration error, in `[0, 1]`: `sum_b (n_b / N) |accuracy_b - confidence_b|`; 0 where there are no images.
    ///
    /// # Source
    /// Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3; proved by `tests/golden/calibration.safetensors`.
    pub fn ece(&self) -> f64 {
        let images: u64 = self.bins.iter().map(|bin| bin.count).sum();
        let error = |bin: &ReliabilityBin| bin.count as f64 * (bin.accuracy - bin.confidence).abs();
        self.bins.iter().map(error).sum::<f64>() / images.max(1) as f64
    }
}

/// The edge before bin `at`.
fn edge(at: usize) -> f64 {
    at as f64 / NUM_BINS as f64
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn one_who_is_always_half_sure_and_half_right_is_calibrated() {
        let mut logits = Logits::new(2);
        let rows = Tensor::new(&[[0f32, 0.0], [0.0, 0.0]], &Device::Cpu).unwrap();
        logits.add(&rows, &[0, 1], &[0, 1]).unwrap();
        let reliability = Reliability::new(&logits, 1.0);
        assert_eq!(reliability.ece(), 0.0);
        let used: Vec<_> = reliability.bins.iter().filter(|bin| bin.count > 0).collect();
        assert_eq!(used.len(), 1);
        assert_eq!((used[0].count, used[0].confidence, used[0].accuracy), (2, 0.5, 0.5));
        assert!(used[0].lower < 0.5 && 0.5 <= used[0].upper);
    }

    #[test]
    fn one_who_is_sure_and_wrong_is_as_wrong_as_can_be() {
        let mut logits = Logits::new(2);
        let rows = Tensor::new(&[[99f32, 0.0]], &Device::Cpu).unwrap();
        logits.add(&rows, &[1], &[0]).unwrap();
        let reliability = Reliability::new(&logits, 1.0);
        assert_eq!(reliability.bins[NUM_BINS - 1].count, 1);
        assert!((reliability.ece() - 1.0).abs() < 1e-12);
        assert_eq!(Reliability::new(&Logits::new(2), 1.0).ece(), 0.0);
    }
}
