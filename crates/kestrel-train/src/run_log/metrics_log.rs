//! `metrics.jsonl`: the run, its steps and its epochs, in numbers that are the same in every run of a seed.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::json_lines::JsonLines;
use crate::callback::EpochTiming;
use crate::{Callback, Control, EpochReport, Progress, Result, StepReport, Trainer};

/// What the first line says.
#[derive(Clone, Debug, Serialize)]
pub struct RunHeader {
    /// The run's name.
    pub name: String,
    /// The network's name.
    pub model: String,
    /// The classes, by index.
    pub classes: Vec<String>,
    /// The run's seed.
    pub seed: u64,
    /// A hash of the options that decide its numbers.
    pub options: String,
}

/// A line; the schema is 1. A loss that is NaN or infinite is the string `"NaN"`, `"inf"` or `"-inf"`.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line<'a> {
    Run {
        schema: u32,
        #[serde(flatten)]
        header: &'a RunHeader,
    },
    /// Every `log_every`th batch. `step` counts the optimiser's steps of the run, `batch` the epoch's batches.
    Step {
        step: u64,
        epoch: usize,
        batch: usize,
        lr: f64,
        #[serde(with = "crate::number")]
        loss: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        grad_norm: Option<f64>,
        #[serde(flatten)]
        scaling: Option<Scaling>,
    },
    Epoch {
        epoch: usize,
        stage: usize,
        step: u64,
        lr: f64,
        #[serde(with = "crate::number")]
        train_loss: f64,
        train_top1: f64,
        #[serde(with = "crate::number")]
        val_loss: f64,
        val_top1: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        val_top5: Option<f64>,
        best: bool,
        #[serde(flatten)]
        scaling: Option<Scaling>,
    },
}

/// Where the loss is scaled.
#[derive(Serialize)]
struct Scaling {
    loss_scale: f64,
    /// Since the run's start.
    skipped_steps: u64,
}

impl Scaling {
    fn of(trainer: &Trainer) -> Option<Self> {
        trainer.grad_scaler().map(|scaler| Self {
            loss_scale: scaler.scale(),
            skipped_steps: scaler.skipped(),
        })
    }
}

/// Writes a run's `metrics.jsonl`.
pub struct MetricsLog {
    lines: JsonLines,
    stage: usize,
}

impl MetricsLog {
    /// The log's file in a run's folder.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join("metrics.jsonl")
    }

    /// Begins the log of a run, or goes on with it from `progress`: lines past that are cut, as is a last one that was not
    /// written whole.
    ///
    /// # Errors
    /// [`Error::Read`](crate::Error::Read) and [`Error::Write`](crate::Error::Write).
    pub fn open(folder: &Path, header: &RunHeader, progress: &Progress) -> Result<Self> {
        let mut lines = JsonLines::open(&Self::path(folder), |line| {
            is_past(line, progress).is_none_or(|past| !past)
        })?;
        if lines.is_empty() {
            lines.write(&Line::Run { schema: 1, header })?;
        }
        Ok(Self { lines, stage: 1 })
    }

    /// Sets the stage that the epochs' lines say, from 1.
    pub fn set_stage(&mut self, stage: usize) {
        self.stage = stage;
    }
}

/// Whether a line tells of what comes after `progress`; none where it tells of no time.
fn is_past(line: &Value, progress: &Progress) -> Option<bool> {
    let epoch = line["epoch"].as_u64()?;
    let done = progress.epoch as u64;
    match line["kind"].as_str()? {
        "step" => {
            let batch = line["batch"].as_u64()?;
            let here = progress.position.map_or(0, |position| position.batches as u64);
            Some((epoch, batch) > (done + 1, here))
        }
        "epoch" => Some(epoch > done),
        _ => None,
    }
}

impl Callback for MetricsLog {
    fn on_step_end(&mut self, trainer: &Trainer, report: &StepReport) -> Result<Control> {
        if let Some(loss) = report.mean_loss {
            self.lines.write(&Line::Step {
                step: trainer.progress().step,
                epoch: report.epoch,
                batch: report.step,
                lr: report.lr,
                loss,
                grad_norm: report.grad_norm,
                scaling: Scaling::of(trainer),
            })?;
        }
        Ok(Control::Continue)
    }

    fn on_epoch_end(&mut self, trainer: &Trainer, report: &EpochReport, _: &EpochTiming) -> Result<Control> {
        self.lines.write(&Line::Epoch {
            epoch: report.epoch,
            stage: self.stage,
            step: report.step,
            lr: report.lr,
            train_loss: report.train_loss,
            train_top1: report.train_accuracy,
            val_loss: report.val_loss,
            val_top1: report.val_accuracy,
            val_top5: report.val_top5,
            best: report.improved,
            scaling: Scaling::of(trainer),
        })?;
        Ok(Control::Continue)
    }
}
