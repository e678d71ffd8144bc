//! Dynamic loss scaling: gradients that `f16` can hold.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A scale below this one means that gradients are too large for `f16` without any scaling.
const LEAST_SCALE: f32 = 1.0;

/// So many skipped steps in a row are no search for a scale any more.
const MOST_SKIPPED: u64 = 25;

/// The options of [`GradScaler`]; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradScalerConfig {
    /// The first scale, at least 1.
    pub init_scale: f64,
    /// What the scale is multiplied by after `growth_interval` good steps in a row, more than 1.
    pub growth_factor: f64,
    /// What the scale is multiplied by after a step that was skipped, above 0 and below 1.
    pub backoff_factor: f64,
    /// At least 1.
    pub growth_interval: u64,
}

impl Default for GradScalerConfig {
    fn default() -> Self {
        Self {
            init_scale: 65536.0,
            growth_factor: 2.0,
            backoff_factor: 0.5,
            growth_interval: 2000,
        }
    }
}

/// Keeps the number that a loss is multiplied by before its backward, so that small gradients do not vanish in `f16`.
///
/// ```text
/// gradients finite:  step made;     good += 1, and at growth_interval: scale ← scale · growth_factor, good ← 0
/// otherwise:         step skipped;  scale ← scale · backoff_factor, good ← 0
/// ```
///
/// Gradients are divided by the scale before they are clipped and measured. A scale never grows beyond what `f32` holds.
/// Unlike PyTorch's, which goes on for ever, a run ends where the scale has fallen below 1, or 25 steps in a row were skipped.
///
/// # Source
/// `torch.amp.GradScaler`; the golden file `grad_scaler`.
#[derive(Clone, Debug, PartialEq)]
pub struct GradScaler {
    config: GradScalerConfig,
    state: GradScalerState,
}

/// What of a scaler is in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GradScalerState {
    scale: f32,
    growth_tracker: u64,
    skipped: u64,
    skipped_in_a_row: u64,
}

impl GradScaler {
    /// A scaler at its first scale.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`].
    pub fn new(config: GradScalerConfig) -> Result<Self> {
        let GradScalerConfig {
            init_scale,
            growth_factor,
            backoff_factor,
            growth_interval,
        } = config;
        let checks = [
            (
                "init_scale",
                init_scale >= f64::from(LEAST_SCALE) && (init_scale as f32).is_finite(),
                "a finite number, 1 or more",
                init_scale,
            ),
            (
                "growth_factor",
                growth_factor > 1.0 && growth_factor.is_finite(),
                "a finite number above 1",
                growth_factor,
            ),
            (
                "backoff_factor",
                backoff_factor > 0.0 && backoff_factor < 1.0,
                "above 0 and below 1",
                backoff_factor,
            ),
            (
                "growth_interval",
                growth_interval > 0,
                "at least 1",
                growth_interval as f64,
            ),
        ];
        for (field, holds, expected, got) in checks {
            if !holds {
                let got = got.to_string();
                return Err(Error::InvalidConfig { field, expected, got });
            }
        }
        let state = GradScalerState {
            scale: init_scale as f32,
            growth_tracker: 0,
            skipped: 0,
            skipped_in_a_row: 0,
        };
        Ok(Self { config, state })
    }

    /// What the loss is multiplied by.
    pub fn scale(&self) -> f64 {
        f64::from(self.state.scale)
    }

    /// What the gradients are multiplied by.
    pub(crate) fn inverse(&self) -> f64 {
        f64::from(self.scale().recip() as f32)
    }

    /// Good steps since the scale was last changed.
    pub fn growth_tracker(&self) -> u64 {
        self.state.growth_tracker
    }

    /// Steps skipped since the run's start.
    pub fn skipped(&self) -> u64 {
        self.state.skipped
    }

    /// Moves the scale after a step, which was skipped unless its gradients were `finite`.
    pub fn update(&mut self, finite: bool) {
        let GradScalerConfig {
            growth_factor,
            backoff_factor,
            growth_interval,
            ..
        } = self.config;
        let state = &mut self.state;
        let times = |factor: f64| (f64::from(state.scale) * factor) as f32;
        if !finite {
            state.scale = times(backoff_factor);
            state.growth_tracker = 0;
            state.skipped += 1;
            state.skipped_in_a_row += 1;
            return;
        }
        state.skipped_in_a_row = 0;
        state.growth_tracker += 1;
        if state.growth_tracker >= growth_interval {
            let grown = times(growth_factor);
            if grown.is_finite() {
                state.scale = grown;
            }
            state.growth_tracker = 0;
        }
    }

    /// Whether no scale is to be found: the gradients are not finite for another reason than the scale.
    pub(crate) fn is_lost(&self) -> bool {
        self.state.scale < LEAST_SCALE || self.state.skipped_in_a_row >= MOST_SKIPPED
    }

    pub(crate) fn state(&self) -> GradScalerState {
        self.state
    }

    pub(crate) fn load_state(&mut self, state: GradScalerState) {
        self.state = state;
    }
}

impl Default for GradScaler {
    /// PyTorch's.
    fn default() -> Self {
        let config = GradScalerConfig::default();
        let state = GradScalerState {
            scale: config.init_scale as f32,
            growth_tracker: 0,
            skipped: 0,
            skipped_in_a_row: 0,
        };
        Self { config, state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_below_one_and_many_skips_in_a_row_end_the_search() {
        let mut scaler = GradScaler::default();
        for skipped in 1..=16 {
            scaler.update(false);
            assert!(!scaler.is_lost(), "{skipped}: {}", scaler.scale());
        }
        scaler.update(false);
        assert!(scaler.is_lost() && scaler.scale() < 1.0 && scaler.skipped() == 17);

        let gentle = GradScalerConfig {
            backoff_factor: 0.99,
            ..GradScalerConfig::default()
        };
        let mut scaler = GradScaler::new(gentle).unwrap();
        (0..24).for_each(|_| scaler.update(false));
        scaler.update(true);
        (0..24).for_each(|_| scaler.update(false));
        assert!(!scaler.is_lost());
        scaler.update(false);
        assert!(scaler.is_lost() && scaler.skipped() == 49);
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let default = GradScalerConfig::default();
        let cases = [
            (
                "init_scale",
                GradScalerConfig {
                    init_scale: 0.5,
                    ..default
                },
            ),
            (
                "init_scale",
                GradScalerConfig {
                    init_scale: f64::NAN,
                    ..default
                },
            ),
            (
                "init_scale",
                GradScalerConfig {
                    init_scale: 1e39,
                    ..default
                },
            ),
            (
                "growth_factor",
                GradScalerConfig {
                    growth_factor: 1.0,
                    ..default
                },
            ),
            (
                "backoff_factor",
                GradScalerConfig {
                    backoff_factor: 1.0,
                    ..default
                },
            ),
            (
                "growth_interval",
                GradScalerConfig {
                    growth_interval: 0,
                    ..default
                },
            ),
        ];
        for (name, config) in cases {
            let error = GradScaler::new(config).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert_eq!(GradScaler::new(default).unwrap(), GradScaler::default());
    }
}
