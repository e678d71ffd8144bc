//! What a run wrote down while it trained: `metrics.jsonl` and `throughput.jsonl`, as far as a report reads them.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::record_file;
use crate::Result;

const METRICS_FILE: &str = "metrics.jsonl";
const THROUGHPUT_FILE: &str = "throughput.jsonl";

/// A run's log. Lines of kinds and fields that are not known are passed over, and so is a last line that is torn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunLog {
    /// What the run is.
    pub run: RunLine,
    /// Steps that were logged, in order.
    pub steps: Vec<StepLine>,
    /// Epochs, in order.
    pub epochs: Vec<EpochLine>,
    /// Where each epoch's time went.
    pub throughput: Vec<ThroughputLine>,
}

/// What a run is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct RunLine {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// The network.
    #[serde(default)]
    pub model: String,
    /// The names of the classes.
    #[serde(default)]
    pub classes: Vec<String>,
    /// The seed.
    #[serde(default)]
    pub seed: Option<u64>,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct StepLine {
    /// Steps since the run's start.
    pub step: u64,
    /// The epoch, from 1.
    pub epoch: u64,
    /// The loss.
    #[serde(with = "crate::number")]
    pub loss: f64,
}

/// An epoch.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct EpochLine {
    /// The epoch, from 1.
    pub epoch: u64,
    /// The learning rate.
    #[serde(default)]
    pub lr: Option<f64>,
    /// Training loss.
    #[serde(with = "crate::number")]
    pub train_loss: f64,
    /// Training accuracy, in `[0, 1]`.
    pub train_top1: f64,
    /// Validation loss; not a finite number where the weights gave none.
    #[serde(with = "crate::number")]
    pub val_loss: f64,
    /// Validation accuracy, in `[0, 1]`.
    pub val_top1: f64,
    /// Validation top-5 accuracy, in `[0, 1]`.
    #[serde(default)]
    pub val_top5: Option<f64>,
}

/// Where an epoch's time went, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ThroughputLine {
    /// The epoch, from 1.
    pub epoch: u64,
    /// All of the training part.
    pub seconds: f64,
    /// Training images a second.
    pub images_per_second: f64,
    /// Waiting for batches.
    #[serde(alias = "load")]
    pub load_seconds: f64,
    /// Forward.
    #[serde(alias = "forward")]
    pub forward_seconds: f64,
    /// Backward.
    #[serde(alias = "backward")]
    pub backward_seconds: f64,
    /// The optimiser.
    #[serde(alias = "optimizer")]
    pub optimizer_seconds: f64,
    /// Validation, which is not part of `seconds`.
    #[serde(alias = "validation")]
    pub validation_seconds: f64,
}

impl RunLog {
    /// Reads the log of a run's folder; what is not there is empty.
    ///
    /// # Errors
    /// [`crate::Error::Read`].
    pub fn load(folder: &Path) -> Result<Self> {
        let metrics = record_file::text(&folder.join(METRICS_FILE))?.unwrap_or_default();
        let throughput = record_file::text(&folder.join(THROUGHPUT_FILE))?.unwrap_or_default();
        let mut log = Self {
            throughput: throughput.lines().filter_map(line).collect(),
            ..Self::default()
        };
        for text in metrics.lines() {
            match line::<Kind>(text).map(|kind| kind.kind).as_deref() {
                Some("run") => log.run = line(text).unwrap_or_default(),
                Some("step") => log.steps.extend(line::<StepLine>(text)),
                Some("epoch") => log.epochs.extend(line::<EpochLine>(text)),
                _ => {}
            }
        }
        Ok(log)
    }

    /// The epoch of the best validation accuracy; the first of equals. As in training, one whose loss is not finite is the best
    /// of nothing.
    pub fn best(&self) -> Option<&EpochLine> {
        self.epochs
            .iter()
            .filter(|epoch| epoch.val_loss.is_finite())
            .fold(None, |best: Option<&EpochLine>, epoch| match best {
                Some(best) if epoch.val_top1 <= best.val_top1 => Some(best),
                _ => Some(epoch),
            })
    }
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

/// A line, if it is a whole one of this kind.
fn line<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_lines_are_read_and_the_others_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = r#"{"kind":"run","schema":1,"name":"a","model":"cnn","classes":["x","y"],"seed":7,"more":[1]}
{"kind":"step","step":10,"epoch":1,"lr":0.1,"loss":2.5,"grad_norm":1.5}
{"kind":"dream"}
{"kind":"epoch","epoch":1,"stage":1,"step":20,"lr":0.1,"train_loss":2.0,"train_top1":0.4,"val_loss":1.9,"val_top1":0.5,"best":true}
{"kind":"epoch","epoch":2,"lr":0.01,"train_loss":1.0,"train_top1":0.6,"val_loss":1.8,"val_top1":0.5,"val_top5":0.9}
{"kind":"epoch","epoch":3,"lr":0.01,"train_l"#;
        std::fs::write(dir.path().join(METRICS_FILE), metrics).unwrap();
        let log = RunLog::load(dir.path()).unwrap();
        assert_eq!((log.run.name.as_str(), log.run.seed), ("a", Some(7)));
        assert_eq!((log.steps.len(), log.epochs.len(), log.throughput.len()), (1, 2, 0));
        assert_eq!(log.epochs[1].val_top5, Some(0.9));
        assert_eq!(log.best().unwrap().epoch, 1);
    }

    #[test]
    fn epochs_whose_loss_is_none_are_read_and_never_the_best() {
        let dir = tempfile::tempdir().unwrap();
        let line = |epoch: u64, loss: &str, top1: f64| {
            format!(
                r#"{{"kind":"epoch","epoch":{epoch},"train_loss":1.0,"train_top1":0.5,"val_loss":{loss},"val_top1":{top1}}}"#
            )
        };
        // The last is as earlier versions wrote it.
        let lines = [
            line(1, "1.5", 0.25),
            line(2, "\"NaN\"", 0.5),
            line(3, "\"inf\"", 0.75),
            line(4, "null", 1.0),
        ];
        std::fs::write(dir.path().join(METRICS_FILE), lines.join("\n")).unwrap();
        let log = RunLog::load(dir.path()).unwrap();
        let finite: Vec<bool> = log.epochs.iter().map(|epoch| epoch.val_loss.is_finite()).collect();
        assert_eq!(finite, [true, false, false, false]);
        assert_eq!(log.best().unwrap().epoch, 1);
    }

    #[test]
    fn times_have_their_unit_in_their_name_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let lines = r#"{"epoch":1,"seconds":9.0,"load":1.0,"forward":2.0}
{"epoch":2,"seconds":9.0,"load_seconds":1.0,"forward_seconds":2.0}"#;
        std::fs::write(dir.path().join(THROUGHPUT_FILE), lines).unwrap();
        let log = RunLog::load(dir.path()).unwrap();
        let times = log.throughput.iter().map(|e| (e.load_seconds, e.forward_seconds));
        assert_eq!(times.collect::<Vec<_>>(), [(1.0, 2.0); 2]);
    }

    #[test]
    fn a_folder_without_logs_is_an_empty_log() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(RunLog::load(dir.path()).unwrap(), RunLog::default());
    }
}
