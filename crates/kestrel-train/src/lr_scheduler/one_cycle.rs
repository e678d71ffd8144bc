//! OneCycleLR.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use super::{Schedule, invalid};
use crate::Result;

/// The curve between two rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnnealStrategy {
    /// Half a cosine.
    Cos,
    /// A straight line.
    Linear,
}

/// Raises the rate from `base / div_factor` to the base rate, and lowers it to
/// `base / (div_factor · final_div_factor)`, in `total_steps` counts.
///
/// The rate that the optimiser was made with is PyTorch's `max_lr`. The momentum is left alone
/// (`cycle_momentum=False`). Beyond the last count the last rate stays, where PyTorch refuses to go on.
///
/// # Source
/// Smith and Topin 2018; `torch.optim.lr_scheduler.OneCycleLR`; the golden file `lr_schedulers`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneCycleLr {
    /// Counts in all, at least 1.
    pub total_steps: u64,
    /// The share of the counts in which the rate rises, in `[0, 1]`.
    pub pct_start: f64,
    /// The curve.
    pub anneal_strategy: AnnealStrategy,
    /// The highest rate over the first, more than 0.
    pub div_factor: f64,
    /// The first rate over the last, more than 0.
    pub final_div_factor: f64,
    /// Whether to go back to the first rate before going down to the last.
    pub three_phase: bool,
}

impl OneCycleLr {
    /// PyTorch's defaults for a number of counts.
    pub fn new(total_steps: u64) -> Self {
        Self {
            total_steps,
            pct_start: 0.3,
            anneal_strategy: AnnealStrategy::Cos,
            div_factor: 25.0,
            final_div_factor: 1e4,
            three_phase: false,
        }
    }

    /// The same, if every option is in its range.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`].
    pub fn checked(self) -> Result<Self> {
        if self.total_steps == 0 {
            return Err(invalid("total_steps", "at least 1", &self.total_steps));
        }
        if !(0.0..=1.0).contains(&self.pct_start) {
            return Err(invalid("pct_start", "in [0, 1]", &self.pct_start));
        }
        for (field, value) in [
            ("div_factor", self.div_factor),
            ("final_div_factor", self.final_div_factor),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(invalid(field, "a finite number, more than 0", &value));
            }
        }
        Ok(self)
    }

    fn anneal(&self, start: f64, end: f64, share: f64) -> f64 {
        match self.anneal_strategy {
            AnnealStrategy::Cos => end + (start - end) / 2.0 * ((PI * share).cos() + 1.0),
            AnnealStrategy::Linear => (end - start) * share + start,
        }
    }
}

impl Schedule for OneCycleLr {
    fn lr(&self, count: u64, base: f64, _: f64) -> f64 {
        let initial = base / self.div_factor;
        let min = initial / self.final_div_factor;
        let total = self.total_steps as f64;
        let last = total - 1.0;
        let peak = self.pct_start * total - 1.0;
        let down = (last, base, min);
        let phases = if self.three_phase {
            let back = 2.0 * self.pct_start * total - 2.0;
            vec![(peak, initial, base), (back, base, initial), (last, initial, min)]
        } else {
            vec![(peak, initial, base), down]
        };
        let count = (count as f64).min(last);
        let mut start = 0.0;
        for (end, from, to) in phases {
            if count <= end || end == last {
                // A phase of no length is over at once.
                let share = if end > start {
                    (count - start) / (end - start)
                } else {
                    1.0
                };
                return self.anneal(from, to, share);
            }
            start = end;
        }
        min
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_to_the_base_falls_and_stays() {
        let cycle = OneCycleLr::new(10).checked().unwrap();
        assert!((cycle.lr(0, 1.0, 0.0) - 0.04).abs() < 1e-15);
        assert!((cycle.lr(2, 1.0, 0.0) - 1.0).abs() < 1e-15);
        assert!((cycle.lr(9, 1.0, 0.0) - 4e-6).abs() < 1e-15);
        assert_eq!(cycle.lr(100, 1.0, 0.0), cycle.lr(9, 1.0, 0.0));
    }

    #[test]
    fn few_steps_make_no_nan() {
        for total_steps in 1..5 {
            for pct_start in [0.0, 0.3, 0.5, 1.0] {
                for three_phase in [false, true] {
                    let cycle = OneCycleLr {
                        pct_start,
                        three_phase,
                        ..OneCycleLr::new(total_steps)
                    };
                    for count in 0..6 {
                        let lr = cycle.lr(count, 1.0, 0.0);
                        assert!(lr.is_finite() && lr > 0.0, "{cycle:?} {count}: {lr}");
                    }
                }
            }
        }
        assert!(OneCycleLr::new(0).checked().is_err());
    }
}
