//! A running mean.

use serde::{Deserialize, Serialize};

/// The mean of the numbers added so far, summed in f64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mean {
    #[serde(with = "crate::number")]
    sum: f64,
    count: u64,
}

impl Mean {
    /// Adds one number.
    pub fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    /// The mean; 0 where nothing was added.
    pub fn value(&self) -> f64 {
        if self.count == 0 {
            0.0
        } else {
            self.sum / self.count as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Mean;

    #[test]
    fn averages_batches_equally() {
        let mut mean = Mean::default();
        assert_eq!(mean.value(), 0.0);
        for value in [1.0, 2.0, 6.0] {
            mean.add(value);
        }
        assert_eq!(mean.value(), 3.0);
    }
}
