//! A linear warm-up before any scheduler.

use serde::{Deserialize, Serialize};

use super::{Event, Interval, LrScheduler, from_state, invalid, to_state};
use crate::{Error, Result};

/// The options of [`LinearWarmup`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearWarmupConfig {
    /// Counts until the full rate, at least 1.
    pub total: u64,
    /// What is counted.
    pub interval: Interval,
    /// The share of the full rate to begin with, in `(0, 1]`.
    pub start_factor: f64,
}

/// Raises the rates from a share of themselves to the whole in a straight line, then starts another scheduler.
///
/// The other scheduler hears nothing before. Where it counts epochs and the warm-up steps, it counts no epoch that ends
/// with the warm-up: its first rate holds for the whole of the next.
///
/// # Source
/// `SequentialLR([LinearLR(start_factor, total_iters=total), other], milestones=[total])` of `torch.optim.lr_scheduler`;
/// the golden file `lr_schedulers`.
pub struct LinearWarmup {
    config: LinearWarmupConfig,
    inner: Option<Box<dyn LrScheduler>>,
    progress: Progress,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    count: u64,
    base_lrs: Vec<f64>,
    /// The warm-up ended with the last event.
    just_done: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    warmup: LinearWarmupConfig,
    progress: Progress,
    inner: Option<serde_json::Value>,
}

impl LinearWarmup {
    /// A warm-up before `inner`; without one, the full rate stays.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for options outside of their ranges.
    pub fn new(config: LinearWarmupConfig, inner: Option<Box<dyn LrScheduler>>) -> Result<Self> {
        if config.total == 0 {
            return Err(invalid("warmup", "at least 1", &0));
        }
        if !(config.start_factor > 0.0 && config.start_factor <= 1.0) {
            return Err(invalid(
                "start_factor",
                "more than 0 and at most 1",
                &config.start_factor,
            ));
        }
        Ok(Self {
            config,
            inner,
            progress: Progress::default(),
        })
    }
}

impl LrScheduler for LinearWarmup {
    fn start(&mut self, lrs: &mut [f64]) {
        self.progress = Progress {
            base_lrs: lrs.to_vec(),
            ..Progress::default()
        };
        for lr in lrs {
            *lr *= self.config.start_factor;
        }
    }

    fn step(&mut self, event: Event, lrs: &mut [f64]) {
        let LinearWarmupConfig {
            total,
            interval,
            start_factor,
        } = self.config;
        let just_done = std::mem::take(&mut self.progress.just_done);
        if self.progress.count >= total {
            let ends_with_it = just_done && matches!(event, Event::Epoch { .. });
            if let Some(inner) = &mut self.inner
                && !ends_with_it
            {
                inner.step(event, lrs);
            }
            return;
        }
        if !interval.counts(event) {
            return;
        }
        self.progress.count += 1;
        let count = self.progress.count;
        if count == total {
            self.progress.just_done = interval == Interval::Step;
            lrs.copy_from_slice(&self.progress.base_lrs);
            if let Some(inner) = &mut self.inner {
                inner.start(lrs);
            }
            return;
        }
        // PyTorch's recursion, to the last bit.
        let rise = 1.0 - start_factor;
        for lr in lrs {
            *lr *= 1.0 + rise / (total as f64 * start_factor + (count - 1) as f64 * rise);
        }
    }

    fn state(&self) -> Result<serde_json::Value> {
        to_state(&State {
            warmup: self.config,
            progress: self.progress.clone(),
            inner: self.inner.as_ref().map(|inner| inner.state()).transpose()?,
        })
    }

    fn load_state(&mut self, state: &serde_json::Value) -> Result<()> {
        let state: State = from_state(state)?;
        let mismatch = |reason: String| Err(Error::CheckpointMismatch { reason });
        if state.warmup != self.config {
            return mismatch(format!("the warm-up is {:?}, and was {:?}", self.config, state.warmup));
        }
        match (&mut self.inner, &state.inner) {
            (Some(inner), Some(state)) => inner.load_state(state)?,
            (None, None) => {}
            _ => return mismatch("one has a scheduler after its warm-up and the other has none".to_owned()),
        }
        self.progress = state.progress;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lr_scheduler::{Scheduled, StepLr};

    fn warmup(total: u64, interval: Interval) -> LinearWarmup {
        let config = LinearWarmupConfig {
            total,
            interval,
            start_factor: 0.25,
        };
        let inner = Scheduled::new(StepLr::new(1, 0.5).unwrap(), Interval::Epoch);
        LinearWarmup::new(config, Some(Box::new(inner))).unwrap()
    }

    /// The rate in each of four epochs' first step, with three steps an epoch.
    fn rates(mut scheduler: LinearWarmup) -> Vec<f64> {
        let mut lrs = [1.0];
        scheduler.start(&mut lrs);
        (0..4)
            .map(|_| {
                let first = lrs[0];
                for _ in 0..3 {
                    scheduler.step(Event::Step, &mut lrs);
                }
                scheduler.step(Event::Epoch { val_loss: 0.0 }, &mut lrs);
                first
            })
            .collect()
    }

    #[test]
    fn the_next_scheduler_begins_with_a_whole_epoch() {
        let close =
            |a: Vec<f64>, b: [f64; 4]| assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} {b:?}");
        // Done with the last step of the first epoch.
        close(rates(warmup(3, Interval::Step)), [0.25, 1.0, 0.5, 0.25]);
        // Done in the middle of the second.
        close(rates(warmup(4, Interval::Step)), [0.25, 0.8125, 0.5, 0.25]);
        close(rates(warmup(2, Interval::Epoch)), [0.25, 0.625, 1.0, 0.5]);
    }

    #[test]
    fn state_round_trips() {
        let mut a = warmup(3, Interval::Step);
        let mut lrs = [0.3, 0.7];
        a.start(&mut lrs);
        for n in 0..6 {
            let state = serde_json::from_str(&a.state().unwrap().to_string()).unwrap();
            let mut b = warmup(3, Interval::Step);
            b.load_state(&state).unwrap();
            let mut other = lrs;
            let event = if n % 3 == 2 {
                Event::Epoch { val_loss: 1.0 }
            } else {
                Event::Step
            };
            a.step(event, &mut lrs);
            b.step(event, &mut other);
            assert_eq!(lrs, other);
        }
        assert!(warmup(4, Interval::Step).load_state(&a.state().unwrap()).is_err());
    }
}
