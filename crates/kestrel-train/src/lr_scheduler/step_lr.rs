//! StepLR and MultiStepLR.

use serde::Serialize;

use super::{Schedule, invalid};
use crate::Result;

/// Multiplies the rate by `gamma` every `step_size` counts.
///
/// # Source
/// `torch.optim.lr_scheduler.StepLR`; the golden file `lr_schedulers`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepLr {
    step_size: u64,
    gamma: f64,
}

impl StepLr {
    /// `step_size` is at least 1, `gamma` a finite number of 0 or more.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`].
    pub fn new(step_size: u64, gamma: f64) -> Result<Self> {
        if step_size == 0 {
            return Err(invalid("step_size", "at least 1", &step_size));
        }
        check_gamma(gamma)?;
        Ok(Self { step_size, gamma })
    }
}

impl Schedule for StepLr {
    fn lr(&self, count: u64, _: f64, lr: f64) -> f64 {
        if count == 0 || !count.is_multiple_of(self.step_size) {
            lr
        } else {
            lr * self.gamma
        }
    }
}

/// Multiplies the rate by `gamma` at each of some counts.
///
/// # Source
/// `torch.optim.lr_scheduler.MultiStepLR`; the golden file `lr_schedulers`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MultiStepLr {
    milestones: Vec<u64>,
    gamma: f64,
}

impl MultiStepLr {
    /// A milestone that is named twice counts twice.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`] for a `gamma` that is not a finite number of 0 or more, no milestone, or one of 0.
    pub fn new(mut milestones: Vec<u64>, gamma: f64) -> Result<Self> {
        check_gamma(gamma)?;
        if milestones.is_empty() || milestones.contains(&0) {
            return Err(invalid(
                "milestones",
                "one or more counts, each at least 1",
                &format!("{milestones:?}"),
            ));
        }
        milestones.sort_unstable();
        Ok(Self { milestones, gamma })
    }
}

impl Schedule for MultiStepLr {
    fn lr(&self, count: u64, _: f64, lr: f64) -> f64 {
        match self.milestones.iter().filter(|milestone| **milestone == count).count() {
            0 => lr,
            times => lr * self.gamma.powi(times as i32),
        }
    }
}

fn check_gamma(gamma: f64) -> Result<()> {
    if gamma >= 0.0 && gamma.is_finite() {
        return Ok(());
    }
    Err(invalid("gamma", "a finite number, 0 or more", &gamma))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_make_no_sense_are_refused() {
        assert!(StepLr::new(0, 0.1).is_err() && StepLr::new(1, f64::NAN).is_err());
        for milestones in [vec![], vec![0, 3]] {
            assert!(MultiStepLr::new(milestones, 0.1).is_err());
        }
    }
}
