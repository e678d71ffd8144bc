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
    /// The rate at which the smoothed loss falls most steeply over the rate's logarithm, if it falls at all: in the middle of the
    /// window, a tenth of the points wide, whose straight line falls most. The first tenth of the points is left out.
    pub suggestion: Option<f64>,
}

/// Share of the loss so far in the smoothed loss.
const SMOOTHING: f64 = 0.9;

/// The losses so far, smoothed.
#[derive(Clone, Copy, Default)]
struct Smoothed {
    average: f64,
    losses: i32,
}

impl Smoothed {
    /// Adds a loss, and gives the average without the share of the 0 that it began with.
    fn add(&mut self, loss: f64) -> f64 {
        self.average = SMOOTHING * self.average + (1.0 - SMOOTHING) * loss;
        self.losses += 1;
        self.average / (1.0 - SMOOTHING.powi(self.losses))
    }
}

/// Trains while the learning rate rises exponentially, and gives the model and the optimiser their state back.
///
/// The precision and the clipping of gradients are the trainer's. All parameter groups get the same rate. The scheduler, the average
/// of the weights and gradient accumulation have no part in it.
///
/// # Errors
/// [`Error::InvalidConfig`], or what training gives. A loss or a gradient that is not finite ends the test and is no error.
///
/// # Source
/// Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3. That the beginning is left out is fastai's
/// `plot_lr_find`.
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
    let (mut smoothed, mut lowest) = (Smoothed::default(), f64::INFINITY);
    let params = trainer.optimizer().params();
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
        let loss = smoothed.add(loss);
        lowest = loss.min(lowest);
        points.push(LrPoint { lr, loss });
        if loss > config.diverged * lowest {
            break;
        }
        let norm = trainer.unscale(&mut grads, &params)?;
        if !norm.is_finite() {
            if trainer.grad_scaler().is_none_or(GradScaler::is_lost) {
                break;
            }
            // Skipped, as a run would.
            continue;
        }
        trainer.grad_clip().apply(&mut grads, &params, norm)?;
        let (_, optimizer) = trainer.model_and_optimizer();
        optimizer.set_lr(lr);
        optimizer.step(&grads)?;
    }
    Ok(points)
}

/// The rate of the steepest fall before the lowest loss.
///
/// The first points are averages of few losses, and jump as these do; so they are left out. What noise there is after them is
/// evened out by taking the slope of a line through a window.
fn steepest(points: &[LrPoint]) -> Option<f64> {
    let tenth = points.len() / 10;
    let points = &points[tenth..];
    let losses = points.iter().map(|point| point.loss).enumerate();
    let lowest = losses.min_by(|a, b| a.1.total_cmp(&b.1))?.0;
    // Odd, so that there is a point in the middle.
    let width = tenth.max(3) | 1;
    points[..=lowest]
        .windows(width)
        .map(|window| (window[width / 2].lr, slope(window)))
        .filter(|(_, slope)| *slope < 0.0)
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(lr, _)| lr)
}

/// The slope of the line through points by least squares, of the loss over the rate's logarithm.
fn slope(points: &[LrPoint]) -> f64 {
    let count = points.len() as f64;
    let x = points.iter().map(|point| point.lr.ln()).sum::<f64>() / count;
    let y = points.iter().map(|point| point.loss).sum::<f64>() / count;
    let (mut products, mut squares) = (0.0, 0.0);
    for point in points {
        let aside = point.lr.ln() - x;
        products += aside * (point.loss - y);
        squares += aside * aside;
    }
    products / squares
}

#[cfg(test)]
mod tests {
    use kestrel_kernels::random::{KeyedRng, Purpose};

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

    /// Batches whose losses differ, at rates that do nothing yet; then a fall, and a rise. The first smoothed losses are not
    /// smooth, and the first of all may be the lowest.
    #[test]
    fn a_noisy_beginning_is_not_what_is_suggested() {
        for seed in 0..200 {
            let mut rng = KeyedRng::new(seed, Purpose::Init, 0, 0);
            let mut smoothed = Smoothed::default();
            let config = LrFinderConfig::default();
            let decades = (config.end_lr / config.start_lr).log10();
            let mut points = Vec::new();
            for step in 0..config.num_steps {
                let lr = config.start_lr * 10f64.powf(decades * step as f64 / (config.num_steps - 1) as f64);
                let noise = 0.4 * (f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5);
                let raw = 0.3 + 2.0 / (1.0 + lr / 1e-2) + (lr / 3.0).powi(2) + noise;
                let loss = smoothed.add(if step == 0 { 0.1 } else { raw });
                points.push(LrPoint { lr, loss });
            }
            // The smoothed loss comes some steps after the raw one.
            let lr = steepest(&points).unwrap();
            assert!((2e-3..3e-1).contains(&lr), "seed {seed}: {lr}");
        }
    }
}
