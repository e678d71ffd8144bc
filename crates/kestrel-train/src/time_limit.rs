//! Ending a run in time, so that it can be gone on with.

use std::time::{Duration, Instant};

use crate::callback::EpochTiming;
use crate::{Callback, Control, EpochReport, Result, StepReport, Trainer};

/// Stops a run at the first step, or batch of validation, after a time.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimit {
    deadline: Option<Instant>,
    over: bool,
}

impl TimeLimit {
    /// The time begins at `start`, which may be that of the program. A limit beyond what a clock can hold is none.
    pub fn new(start: Instant, limit: Duration) -> Self {
        Self {
            deadline: start.checked_add(limit),
            over: false,
        }
    }

    /// Whether it has stopped the run.
    pub fn is_over(&self) -> bool {
        self.over
    }

    fn look(&mut self) -> Control {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.over = true;
            return Control::Stop;
        }
        Control::Continue
    }
}

impl Callback for TimeLimit {
    fn on_step_end(&mut self, _: &Trainer, _: &StepReport) -> Result<Control> {
        Ok(self.look())
    }

    fn on_validation_batch(&mut self, _: usize, _: usize) -> Result<Control> {
        Ok(self.look())
    }

    fn on_epoch_end(&mut self, trainer: &Trainer, _: &EpochReport, _: &EpochTiming) -> Result<Control> {
        // A run that is done is not stopped.
        if trainer.progress().epoch >= trainer.config().epochs {
            return Ok(Control::Continue);
        }
        Ok(self.look())
    }
}
