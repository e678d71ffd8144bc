//! The scheduler that counts for a schedule.

use serde::{Deserialize, Serialize};

use super::{Event, Interval, LrScheduler, from_state, to_state};
use crate::{Error, Result};

/// A learning rate as a function of a count.
pub trait Schedule: Send {
    /// The rate after `count` events; `base` is the group's rate at the start, `lr` its rate so far. At count 0 it gives
    /// the rate to begin with.
    fn lr(&self, count: u64, base: f64, lr: f64) -> f64;
}

/// Counts steps or epochs, and sets each group's rate by a [`Schedule`].
#[derive(Clone, Debug)]
pub struct Scheduled<S> {
    schedule: S,
    interval: Interval,
    count: u64,
    base_lrs: Vec<f64>,
}

/// The options are saved too: with others, a resumed run would follow another curve.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    schedule: serde_json::Value,
    interval: Interval,
    count: u64,
    base_lrs: Vec<f64>,
}

impl<S: Schedule> Scheduled<S> {
    /// A scheduler that has counted nothing.
    pub fn new(schedule: S, interval: Interval) -> Self {
        Self {
            schedule,
            interval,
            count: 0,
            base_lrs: Vec::new(),
        }
    }
}

impl<S: Schedule + Serialize> LrScheduler for Scheduled<S> {
    fn start(&mut self, lrs: &mut [f64]) {
        self.count = 0;
        self.base_lrs = lrs.to_vec();
        for lr in lrs {
            *lr = self.schedule.lr(0, *lr, *lr);
        }
    }

    fn step(&mut self, event: Event, lrs: &mut [f64]) {
        if !self.interval.counts(event) {
            return;
        }
        self.count += 1;
        for (lr, base) in lrs.iter_mut().zip(&self.base_lrs) {
            *lr = self.schedule.lr(self.count, *base, *lr);
        }
    }

    fn state(&self) -> Result<serde_json::Value> {
        to_state(&State {
            schedule: to_state(&self.schedule)?,
            interval: self.interval,
            count: self.count,
            base_lrs: self.base_lrs.clone(),
        })
    }

    fn load_state(&mut self, state: &serde_json::Value) -> Result<()> {
        let state: State = from_state(state)?;
        let own = to_state(&self.schedule)?;
        if state.schedule != own || state.interval != self.interval {
            return Err(Error::CheckpointMismatch {
                reason: format!(
                    "the scheduler is {own} by {:?}, and was {} by {:?}",
                    self.interval, state.schedule, state.interval
                ),
            });
        }
        self.count = state.count;
        self.base_lrs = state.base_lrs;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lr_scheduler::StepLr;

    fn scheduler(step_size: u64) -> Scheduled<StepLr> {
        Scheduled::new(StepLr::new(step_size, 0.5).unwrap(), Interval::Epoch)
    }

    #[test]
    fn only_its_own_events_are_counted() {
        let mut scheduler = scheduler(1);
        let mut lrs = [1.0, 0.1];
        scheduler.start(&mut lrs);
        scheduler.step(Event::Step, &mut lrs);
        assert_eq!(lrs, [1.0, 0.1]);
        scheduler.step(Event::Epoch { val_loss: f64::NAN }, &mut lrs);
        assert_eq!(lrs, [0.5, 0.05]);
    }

    #[test]
    fn state_round_trips_and_other_options_are_refused() {
        let mut a = scheduler(2);
        let mut lrs = [0.1 + 0.2];
        a.start(&mut lrs);
        a.step(Event::Epoch { val_loss: 0.0 }, &mut lrs);
        let state = serde_json::from_str(&a.state().unwrap().to_string()).unwrap();
        let mut b = scheduler(2);
        b.load_state(&state).unwrap();
        let mut other = lrs;
        a.step(Event::Epoch { val_loss: 0.0 }, &mut lrs);
        b.step(Event::Epoch { val_loss: 0.0 }, &mut other);
        assert_eq!((lrs, b.base_lrs), (other, a.base_lrs));
        let error = scheduler(3).load_state(&state).unwrap_err().to_string();
        assert!(error.contains("step_size"), "{error}");
    }
}
