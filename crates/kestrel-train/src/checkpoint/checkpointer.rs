//! The callback that saves a run.

use std::path::PathBuf;

use kestrel_models::weights::ModelInfo;

use super::{Checkpoint, Weights};
use crate::callback::EpochTiming;
use crate::{Callback, Control, EpochReport, Result, Trainer};

/// The weights of the epoch with the best validation accuracy, in a run's folder.
pub const BEST_FILE: &str = "best.safetensors";
/// The whole state after the last epoch, in a run's folder.
pub const CHECKPOINT_FILE: &str = "checkpoint.safetensors";

/// Saves the best weights whenever validation accuracy improves, and a checkpoint after every epoch.
pub struct Checkpointer {
    folder: PathBuf,
    info: ModelInfo,
    config: serde_json::Value,
}

impl Checkpointer {
    /// `folder` must exist; `config` is the program's own configuration, given back on resuming.
    pub fn new(folder: PathBuf, info: ModelInfo, config: serde_json::Value) -> Self {
        Self { folder, info, config }
    }
}

impl Callback for Checkpointer {
    fn on_epoch_end(&mut self, trainer: &Trainer, report: &EpochReport, _: &EpochTiming) -> Result<Control> {
        let span = tracing::debug_span!("checkpoint");
        let _guard = span.enter();
        let info = ModelInfo {
            temperature: report.temperature,
            ..self.info.clone()
        };
        // The weights come first: a checkpoint that says "best" must never be older than the best file.
        if report.improved {
            let path = self.folder.join(BEST_FILE);
            Weights::save_state_dict(&trainer.validated_weights()?, &info, &path)?;
            tracing::debug!(path = %path.display(), "Best model saved");
        }
        Checkpoint::capture(trainer, &info, &self.config)?.save(&self.folder.join(CHECKPOINT_FILE))?;
        Ok(Control::Continue)
    }
}
