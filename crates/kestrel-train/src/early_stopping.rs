//! Ending a run that no longer gets better.

use crate::callback::EpochTiming;
use crate::{Callback, Control, EpochReport, Result, Trainer};

/// What is to get better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The validation loss, which is to fall.
    ValLoss,
    /// The validation accuracy, which is to rise.
    ValAccuracy,
}

/// Stops a run after `patience` epochs in a row of which none is better than the best before.
///
/// It counts from the run's history, so a resumed run stops where the straight one does.
///
/// # Source
/// Keras's `EarlyStopping` with `min_delta` 0.
#[derive(Clone, Copy, Debug)]
pub struct EarlyStopping {
    watched: Watched,
    patience: usize,
    stopped: bool,
}

impl EarlyStopping {
    /// Watches `watched`; a patience of 0 is one of 1.
    pub fn new(watched: Watched, patience: usize) -> Self {
        Self {
            watched,
            patience: patience.max(1),
            stopped: false,
        }
    }

    /// Whether it has stopped the run.
    pub fn has_stopped(&self) -> bool {
        self.stopped
    }

    fn look(&mut self, history: &[EpochReport]) -> Control {
        let since = epochs_since_best(self.watched, history);
        if since < self.patience {
            return Control::Continue;
        }
        if !self.stopped {
            let what = match self.watched {
                Watched::ValLoss => "validation loss",
                Watched::ValAccuracy => "validation accuracy",
            };
            tracing::info!("Early stopping: no better {what} for {since} epochs");
        }
        self.stopped = true;
        Control::Stop
    }
}

fn epochs_since_best(watched: Watched, history: &[EpochReport]) -> usize {
    let mut best = f64::NEG_INFINITY;
    let mut since = 0;
    for report in history {
        let score = match watched {
            Watched::ValLoss => -report.val_loss,
            Watched::ValAccuracy => report.val_accuracy,
        };
        // A score that is no number is better than nothing.
        if score > best {
            best = score;
            since = 0;
        } else {
            since += 1;
        }
    }
    since
}

impl Callback for EarlyStopping {
    fn on_fit_start(&mut self, trainer: &Trainer) -> Result<Control> {
        if trainer.progress().position.is_some() {
            return Ok(Control::Continue);
        }
        Ok(self.look(&trainer.progress().history))
    }

    fn on_epoch_end(&mut self, trainer: &Trainer, _: &EpochReport, _: &EpochTiming) -> Result<Control> {
        Ok(self.look(&trainer.progress().history))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(scores: &[f64]) -> Vec<EpochReport> {
        let report = |(i, score): (usize, &f64)| EpochReport {
            epoch: i + 1,
            step: 0,
            train_loss: 0.0,
            train_accuracy: 0.0,
            val_loss: 1.0 - score,
            val_accuracy: *score,
            lr: 0.1,
            improved: false,
            val_top5: None,
            temperature: None,
        };
        scores.iter().enumerate().map(report).collect()
    }

    #[test]
    fn epochs_are_counted_since_the_best() {
        for watched in [Watched::ValLoss, Watched::ValAccuracy] {
            for (scores, since) in [
                (&[][..], 0),
                (&[0.5], 0),
                (&[0.5, 0.5], 1),
                (&[0.5, 0.4, 0.6], 0),
                (&[0.5, 0.7, 0.6, 0.65, 0.7], 3),
                (&[f64::NAN, f64::NAN], 2),
            ] {
                assert_eq!(epochs_since_best(watched, &history(scores)), since, "{scores:?}");
            }
        }
    }

    #[test]
    fn it_stops_when_its_patience_is_at_an_end() {
        let mut stopping = EarlyStopping::new(Watched::ValLoss, 2);
        assert_eq!(stopping.look(&history(&[0.5, 0.4])), Control::Continue);
        assert!(!stopping.has_stopped());
        assert_eq!(stopping.look(&history(&[0.5, 0.4, 0.5])), Control::Stop);
        assert!(stopping.has_stopped());
    }
}
