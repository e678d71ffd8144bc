//! CosineAnnealingLR, and the same with warm restarts.

use std::f64::consts::PI;

use serde::Serialize;

use super::{Schedule, invalid};
use crate::Result;

/// Lowers the rate from its base to `eta_min` along half a cosine of `t_max` counts, and on along the cosine.
///
/// ```text
/// lr(count) = eta_min + (base − eta_min) (1 + cos(π count / t_max)) / 2
/// ```
///
/// Computed from the rate before, as PyTorch does, so that rates that were changed by hand are followed.
///
/// # Source
/// Loshchilov and Hutter 2017; `torch.optim.lr_scheduler.CosineAnnealingLR`; the golden file `lr_schedulers`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CosineAnnealingLr {
    t_max: u64,
    eta_min: f64,
}

impl CosineAnnealingLr {
    /// `t_max` is at least 1, `eta_min` a finite number of 0 or more.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`].
    pub fn new(t_max: u64, eta_min: f64) -> Result<Self> {
        if t_max == 0 {
            return Err(invalid("t_max", "at least 1", &t_max));
        }
        check_eta_min(eta_min)?;
        Ok(Self { t_max, eta_min })
    }
}

impl Schedule for CosineAnnealingLr {
    fn lr(&self, count: u64, base: f64, lr: f64) -> f64 {
        let t_max = self.t_max as f64;
        if count == 0 {
            return lr;
        }
        // Right after the lowest point the recursion would divide by 0.
        let after_lowest = (count - 1) % (2 * self.t_max) == self.t_max;
        if after_lowest {
            return lr + (base - self.eta_min) * (1.0 - (PI / t_max).cos()) / 2.0;
        }
        let height = |count: u64| 1.0 + (PI * count as f64 / t_max).cos();
        height(count) / height(count - 1) * (lr - self.eta_min) + self.eta_min
    }
}

/// Cosine annealing that starts again after `t_0` counts, then after `t_mult` times as many, and so on.
///
/// # Source
/// Loshchilov and Hutter 2017, "SGDR"; `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`; the golden file
/// `lr_schedulers`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CosineAnnealingWarmRestarts {
    t_0: u64,
    t_mult: u64,
    eta_min: f64,
}

impl CosineAnnealingWarmRestarts {
    /// `t_0` and `t_mult` are at least 1, `eta_min` a finite number of 0 or more.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`].
    pub fn new(t_0: u64, t_mult: u64, eta_min: f64) -> Result<Self> {
        for (field, value) in [("t_0", t_0), ("t_mult", t_mult)] {
            if value == 0 {
                return Err(invalid(field, "at least 1", &value));
            }
        }
        check_eta_min(eta_min)?;
        Ok(Self { t_0, t_mult, eta_min })
    }

    /// The count since the last restart, and the length of the cycle.
    fn place(&self, count: u64) -> (u64, u64) {
        if self.t_mult == 1 {
            return (count % self.t_0, self.t_0);
        }
        let (mut current, mut length) = (count, self.t_0);
        while current >= length {
            current -= length;
            length = length.saturating_mul(self.t_mult);
        }
        (current, length)
    }
}

impl Schedule for CosineAnnealingWarmRestarts {
    fn lr(&self, count: u64, base: f64, _: f64) -> f64 {
        let (current, length) = self.place(count);
        self.eta_min + (base - self.eta_min) * (1.0 + (PI * current as f64 / length as f64).cos()) / 2.0
    }
}

fn check_eta_min(eta_min: f64) -> Result<()> {
    if eta_min >= 0.0 && eta_min.is_finite() {
        return Ok(());
    }
    Err(invalid("eta_min", "a finite number, 0 or more", &eta_min))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_make_no_sense_are_refused() {
        assert!(CosineAnnealingLr::new(0, 0.0).is_err() && CosineAnnealingLr::new(1, -1.0).is_err());
        assert!(CosineAnnealingWarmRestarts::new(1, 0, 0.0).is_err());
    }

    #[test]
    fn cycles_grow() {
        let restarts = CosineAnnealingWarmRestarts::new(2, 3, 0.0).unwrap();
        let places: Vec<_> = [0, 1, 2, 7, 8, 25].map(|count| restarts.place(count)).into();
        assert_eq!(places, [(0, 2), (1, 2), (0, 6), (5, 6), (0, 18), (17, 18)]);
    }
}
