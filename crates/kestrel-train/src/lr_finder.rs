//! The learning-rate range test: how the loss goes as the rate rises.

use crate::grad_scaler::GradScaler;
use crate::trainer::Pass;
use crate::{BatchSource, Error, Result, Trainer};

/// The options of [`find_lr`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LrFinderConfig {
    /// The first rate, more than 0.
    pub start_lr: f64,
    /// The last rate, more than the first.
    pub end_lr: f64,
    /// Steps from the first to the last, at least 10.
    pub num_steps: usize,
    /// The test ends once the smoothed loss is this many times the lowest.
    pub diverged: f64,
}

impl Default for LrFinderConfig {
    fn default() -> Self {
        Self {
            start_lr: 1e-6,
            end_lr: 10.0,
            num_steps: 100,
            diverged: 4.0,
        }
    }
}

/// A step of the test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LrPoint {
    /// The rate of the step.
    pub lr: f64,
    /// The loss before the step, smoothed.
    pub loss: f64,
}

/// What the test found.
#[derive(Clone, Debug, PartialEq)]
pub struct LrCurve {
    /// The steps, by rising rate.
    pub points: Vec<LrPoint>,
    /// The rate at which the smoothed loss falls most steeply over the rate's logarithm, if it falls at all.
    pub suggestion: Option<f64>,
}

/// Share of the loss so far in the smoothed loss.
const SMOOTHING: f64 = 0.9;

/// Trains while the learning rate rises exponentially, and gives the model and the optimiser their state back.
///
/// The precision is the trainer's. All parameter groups get the same rate. The scheduler, the average of the weights and gradient accumulation have no
/// part in it.
///
/// # Errors
/// [`Error::InvalidConfig`], or what training gives. A loss that is not finite ends the test and is no error.
///
/// # Source
/// Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3.
pub fn find_lr(trainer: &mut Trainer, loader: &dyn BatchSource, config: &LrFinderConfig) -> Result<LrCurve> {
    check(config)?;
    if loader.num_batches() == 0 {
        return Err(Error::EmptySplit { split: "training" });
    }
    let weights = trainer.model().params().state_dict()?;
    let (state, lrs) = (trainer.optimizer().state_dict()?, trainer.optimizer().lrs());
    let scaling = trainer.grad_scaler().map(GradScaler::state);
    let points = sweep(trainer, loader, config);
    let (model, optimizer) = trainer.model_and_optimizer();
    model.params().load_state_dict(&weights)?;
    optimizer.load_state_dict(&state)?;
    optimizer.set_lrs(&lrs);
    if let (Some(scaler), Some(state)) = (trainer.grad_scaler_mut(), scaling) {
        scaler.load_state(state);
    }
    let points = points?;
    Ok(LrCurve {
        suggestion: steepest(&points),
        points,
    })
}

fn check(config: &LrFinderConfig) -> Result<()> {
    let bad = |field, expected, got: String| Err(Error::InvalidConfig { field, expected, got });
    if !(config.start_lr > 0.0 && config.start_lr.is_finite()) {
        return bad("start_lr", "a finite number above 0", config.start_lr.to_string());
    }
    if !(config.end_lr > config.start_lr && config.end_lr.is_finite()) {
        return bad("end_lr", "a finite number above start_lr", config.end_lr.to_string());
    }
    if config.num_steps < 10 {
        return bad("num_steps", "at least 10", config.num_steps.to_string());
    }
    if config.diverged.is_nan() || config.diverged <= 1.0 {
        return bad("diverged", "more than 1", config.diverged.to_string());
    }
    Ok(())
}

fn sweep(trainer: &mut Trainer, loader: &dyn BatchSource, config: &LrFinderConfig) -> Result<Vec<LrPoint>> {
    let ratio = config.end_lr / config.start_lr;
    let mut points: Vec<LrPoint> = Vec::with_capacity(config.num_steps);
    let (mut average, mut lowest) = (0.0, f64::INFINITY);
    let mut epoch = 0;
    let mut batches = loader.epoch(epoch)?;
    for step in 0..config.num_steps {
        let batch = loop {
            if let Some(batch) = batches.next() {
                break batch?;
            }
            epoch += 1;
            batches = loader.epoch(epoch)?;
        };
        let lr = config.start_lr * ratio.powf(step as f64 / (config.num_steps - 1) as f64);
        let Pass { loss, mut grads, .. } = match trainer.forward_backward(&batch, step + 1, step, true) {
            Err(Error::NonFinite(_)) => break,
            other => other?,
        };
        average = SMOOTHING * average + (1.0 - SMOOTHING) * loss;
        // The first averages lean to the 0 that they began with.
        let loss = average / (1.0 - SMOOTHING.powi(step as i32 + 1));
        lowest = loss.min(lowest);
        points.push(LrPoint { lr, loss });
        if loss > config.diverged * lowest {
            break;
        }
        if trainer.grad_scaler().is_some() {
            let params = trainer.optimizer().params();
            if !trainer.unscale(&mut grads, &params)?.is_finite() {
                if trainer.grad_scaler().is_some_and(GradScaler::is_lost) {
                    break;
                }
                // Skipped, as a run would.
                continue;
            }
        }
        let (_, optimizer) = trainer.model_and_optimizer();
        optimizer.set_lr(lr);
        optimizer.step(&grads)?;
    }
    Ok(points)
}

/// The rate of the steepest fall before the lowest loss, by differences over two steps.
fn steepest(points: &[LrPoint]) -> Option<f64> {
    let lowest = points
        .iter()
        .enumerate()
        .min_by(|a, b| a.1.loss.total_cmp(&b.1.loss))?
        .0;
    points[..=lowest]
        .windows(3)
        .map(|w| (w[1].lr, (w[2].loss - w[0].loss) / (w[2].lr / w[0].lr).ln()))
        .filter(|(_, slope)| *slope < 0.0)
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(lr, _)| lr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(loss: impl Fn(f64) -> f64) -> Vec<LrPoint> {
        (0..60)
            .map(|i| 10f64.powf(f64::from(i) / 10.0 - 5.0))
            .map(|lr| LrPoint { lr, loss: loss(lr) })
            .collect()
    }

    #[test]
    fn the_suggestion_is_where_the_loss_falls_most() {
        // A fall centred at 1e-2, a rise beyond 1.
        let points = curve(|lr| 2.0 / (1.0 + (lr / 1e-2).powi(2)) + (lr / 1.0).powi(4));
        let lr = steepest(&points).unwrap();
        assert!((0.5e-2..2e-2).contains(&lr), "{lr}");
        assert_eq!(steepest(&curve(|lr| 1.0 + lr)), None);
        assert_eq!(steepest(&[]), None);
    }
}
