//! ReduceLROnPlateau.

use serde::{Deserialize, Serialize};

use super::{Event, LrScheduler, from_state, to_state};
use crate::{Error, Result};

/// Whether the metric should fall or rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlateauMode {
    /// Lower is better, as for a loss.
    Min,
    /// Higher is better, as for an accuracy.
    Max,
}

/// How the threshold is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ThresholdMode {
    /// Better means below `best * (1 - threshold)`, or above `best * (1 + threshold)`.
    Rel,
    /// Better means below `best - threshold`, or above `best + threshold`.
    Abs,
}

/// The options of [`ReduceLROnPlateau`], with PyTorch's names; the defaults are the reference program's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReduceLROnPlateauConfig {
    /// Whether the metric should fall or rise.
    pub mode: PlateauMode,
    /// What the rate is multiplied by, below 1.
    pub factor: f64,
    /// Epochs without improvement that are borne; the next one reduces the rate.
    pub patience: u64,
    /// What counts as an improvement.
    pub threshold: f64,
    /// How the threshold is measured.
    pub threshold_mode: ThresholdMode,
    /// Epochs after a reduction in which bad ones are not counted.
    pub cooldown: u64,
    /// The rate is never reduced below this.
    pub min_lr: f64,
    /// A reduction smaller than this is not made.
    pub eps: f64,
}

impl Default for ReduceLROnPlateauConfig {
    fn default() -> Self {
        Self {
            mode: PlateauMode::Min,
            factor: 0.1,
            patience: 3,
            threshold: 1e-4,
            threshold_mode: ThresholdMode::Rel,
            cooldown: 0,
            min_lr: 0.0,
            eps: 1e-8,
        }
    }
}

/// Multiplies the learning rate by a factor once the metric has not improved for more than `patience` epochs.
///
/// # Source
/// `torch.optim.lr_scheduler.ReduceLROnPlateau`; the golden file `reduce_on_plateau` compares the rate after every
/// epoch of adversarial metric sequences.
#[derive(Clone, Debug)]
pub struct ReduceLROnPlateau {
    config: ReduceLROnPlateauConfig,
    state: State,
}

/// Infinite until the first epoch, hence an `Option`, which JSON can hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    best: Option<f64>,
    num_bad_epochs: u64,
    cooldown_counter: u64,
}

impl ReduceLROnPlateau {
    /// A scheduler that has seen no epoch.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for a factor of 1 or more, as in PyTorch, or values that are not numbers.
    pub fn new(config: ReduceLROnPlateauConfig) -> Result<Self> {
        let bad = |field, expected, got: f64| {
            Err(Error::InvalidConfig {
                field,
                expected,
                got: got.to_string(),
            })
        };
        if !(0.0..1.0).contains(&config.factor) {
            return bad("factor", "in [0, 1)", config.factor);
        }
        for (field, value) in [
            ("threshold", config.threshold),
            ("min_lr", config.min_lr),
            ("eps", config.eps),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return bad(field, "a finite number, 0 or more", value);
            }
        }
        Ok(Self {
            config,
            state: State::default(),
        })
    }

    fn is_better(&self, metric: f64) -> bool {
        let Some(best) = self.state.best else {
            // PyTorch starts at +-infinity, which any number betters and NaN does not.
            return match self.config.mode {
                PlateauMode::Min => metric < f64::INFINITY,
                PlateauMode::Max => metric > f64::NEG_INFINITY,
            };
        };
        let threshold = self.config.threshold;
        match (self.config.mode, self.config.threshold_mode) {
            (PlateauMode::Min, ThresholdMode::Rel) => metric < best * (1.0 - threshold),
            (PlateauMode::Min, ThresholdMode::Abs) => metric < best - threshold,
            (PlateauMode::Max, ThresholdMode::Rel) => metric > best * (threshold + 1.0),
            (PlateauMode::Max, ThresholdMode::Abs) => metric > best + threshold,
        }
    }
}

impl LrScheduler for ReduceLROnPlateau {
    fn step(&mut self, event: Event, lrs: &mut [f64]) {
        let Event::Epoch { val_loss: metric } = event else {
            return;
        };
        if self.is_better(metric) {
            self.state.best = Some(metric);
            self.state.num_bad_epochs = 0;
        } else {
            self.state.num_bad_epochs += 1;
        }
        if self.state.cooldown_counter > 0 {
            self.state.cooldown_counter -= 1;
            self.state.num_bad_epochs = 0;
        }
        if self.state.num_bad_epochs <= self.config.patience {
            return;
        }
        self.state.cooldown_counter = self.config.cooldown;
        self.state.num_bad_epochs = 0;
        for lr in lrs {
            let reduced = (*lr * self.config.factor).max(self.config.min_lr);
            if *lr - reduced > self.config.eps {
                *lr = reduced;
            }
        }
    }

    fn state(&self) -> Result<serde_json::Value> {
        to_state(&self.state)
    }

    fn load_state(&mut self, state: &serde_json::Value) -> Result<()> {
        self.state = from_state(state)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduces_after_more_than_patience_bad_epochs() {
        let mut scheduler = ReduceLROnPlateau::new(ReduceLROnPlateauConfig::default()).unwrap();
        let mut lrs = [1.0];
        let rates: Vec<f64> = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
            .iter()
            .map(|loss| {
                scheduler.step(Event::Epoch { val_loss: *loss }, &mut lrs);
                lrs[0]
            })
            .collect();
        assert_eq!(rates, [1.0, 1.0, 1.0, 1.0, 0.1, 0.1]);
    }

    #[test]
    fn state_round_trip() {
        let mut a = ReduceLROnPlateau::new(ReduceLROnPlateauConfig::default()).unwrap();
        for val_loss in [0.1 + 0.2, 5.0] {
            a.step(Event::Epoch { val_loss }, &mut [1.0]);
        }
        let mut b = ReduceLROnPlateau::new(ReduceLROnPlateauConfig::default()).unwrap();
        b.load_state(&serde_json::from_str(&a.state().unwrap().to_string()).unwrap())
            .unwrap();
        assert_eq!(a.state, b.state);
        assert!(b.load_state(&serde_json::json!({"gamma": 1})).is_err());
    }

    #[test]
    fn a_factor_of_one_is_refused() {
        let config = ReduceLROnPlateauConfig {
            factor: 1.0,
            ..Default::default()
        };
        assert!(ReduceLROnPlateau::new(config).is_err());
    }
}
