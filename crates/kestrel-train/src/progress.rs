//! How far a run has come: what a checkpoint says beside the tensors.

use serde::{Deserialize, Serialize};

use crate::EpochReport;
use crate::metrics::{Accuracy, Mean};

/// How far a run has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Epochs completed.
    pub epoch: usize,
    /// Optimiser steps made.
    pub step: u64,
    /// Training images seen.
    pub samples_seen: u64,
    /// The best validation accuracy in `[0, 1]`, once there is one.
    pub best_accuracy: Option<f64>,
    /// The epoch of the best accuracy, from 1.
    pub best_epoch: Option<usize>,
    /// The optimiser steps made by the end of that epoch.
    pub best_step: Option<u64>,
    /// Every completed epoch.
    pub history: Vec<EpochReport>,
    /// Where in the next epoch the run is; none between two epochs.
    pub position: Option<Position>,
    /// The training samples that were skipped because they are damaged, in rising order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_samples: Vec<usize>,
}

/// A place within an epoch, after a step of the optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The number of the batch that comes next, from 0.
    pub next_batch: usize,
    /// Batches trained on: fewer than that where batches of damaged images were left out.
    pub batches: usize,
    /// The loss over the batches.
    pub loss: Mean,
    /// The loss over the batches since the last line of the log.
    pub recent_loss: Mean,
    /// The accuracy over the images.
    pub accuracy: Accuracy,
    /// The learning rate that the epoch began with.
    pub lr: f64,
    /// The training part is over, and validation comes next.
    pub trained: bool,
}

impl Position {
    /// The start of an epoch.
    pub(crate) fn start(lr: f64) -> Self {
        Self {
            next_batch: 0,
            batches: 0,
            loss: Mean::default(),
            recent_loss: Mean::default(),
            accuracy: Accuracy::default(),
            lr,
            trained: false,
        }
    }
}
