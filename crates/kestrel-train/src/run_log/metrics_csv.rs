//! `metrics.csv`: a row an epoch, for a spreadsheet.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::callback::EpochTiming;
use crate::checkpoint::write_atomic;
use crate::{Callback, Control, EpochReport, Result, Trainer};

/// Writes a run's `metrics.csv`: whole after each epoch, since the progress knows all of them.
pub struct MetricsCsv {
    path: PathBuf,
}

impl MetricsCsv {
    /// The file in a run's folder, which must exist.
    pub fn new(folder: &Path) -> Self {
        Self {
            path: folder.join("metrics.csv"),
        }
    }
}

fn table(history: &[EpochReport]) -> String {
    let mut text = "epoch,step,lr,train_loss,train_top1,val_loss,val_top1,val_top5,best\n".to_owned();
    for report in history {
        // Empty where there are no more than five classes.
        let top5 = report.val_top5.map_or_else(String::new, |top5| top5.to_string());
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{top5},{}",
            report.epoch,
            report.step,
            report.lr,
            report.train_loss,
            report.train_accuracy,
            report.val_loss,
            report.val_accuracy,
            report.improved
        );
    }
    text
}

impl Callback for MetricsCsv {
    fn on_epoch_end(&mut self, trainer: &Trainer, _: &EpochReport, _: &EpochTiming) -> Result<Control> {
        write_atomic(&self.path, table(&trainer.progress().history).as_bytes())?;
        Ok(Control::Continue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_an_epoch() {
        let report = EpochReport {
            epoch: 1,
            step: 40,
            train_loss: 0.5,
            train_accuracy: 0.25,
            val_loss: 1e-9,
            val_accuracy: 1.0,
            lr: 1e-3,
            improved: true,
            val_top5: None,
            temperature: None,
        };
        let more = EpochReport {
            val_top5: Some(0.75),
            ..report.clone()
        };
        let lines = [
            "epoch,step,lr,train_loss,train_top1,val_loss,val_top1,val_top5,best\n",
            "1,40,0.001,0.5,0.25,0.000000001,1,,true\n",
            "1,40,0.001,0.5,0.25,0.000000001,1,0.75,true\n",
        ];
        assert_eq!(table(&[report, more]), lines.concat());
    }
}
