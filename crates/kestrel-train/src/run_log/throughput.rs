//! `throughput.jsonl`: where each epoch's time went. Times differ from run to run, so they are in no other log.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::json_lines::JsonLines;
use crate::callback::EpochTiming;
use crate::{Callback, Control, EpochReport, Progress, Result, Trainer};

/// A line an epoch; times in seconds. Of an epoch that was resumed, the part since then.
///
/// On a GPU `forward` may be the host's time for launching both passes, and `backward` 0: see [`EpochTiming`].
#[derive(Serialize)]
struct Line {
    epoch: usize,
    seconds: f64,
    images: u64,
    images_per_second: f64,
    load: f64,
    forward: f64,
    backward: f64,
    optimizer: f64,
    validation: f64,
}

/// Writes a run's `throughput.jsonl`.
pub struct ThroughputLog {
    lines: JsonLines,
}

impl ThroughputLog {
    /// Begins the log in a run's folder, or goes on with it from `progress`: the lines of later epochs are cut.
    ///
    /// # Errors
    /// [`Error::Read`](crate::Error::Read) and [`Error::Write`](crate::Error::Write).
    pub fn open(folder: &Path, progress: &Progress) -> Result<Self> {
        let keep = |line: &serde_json::Value| {
            let epoch = line["epoch"].as_u64();
            epoch.is_none_or(|epoch| epoch <= progress.epoch as u64)
        };
        Ok(Self {
            lines: JsonLines::open(&folder.join("throughput.jsonl"), keep)?,
        })
    }
}

impl Callback for ThroughputLog {
    fn on_epoch_end(&mut self, _: &Trainer, report: &EpochReport, timing: &EpochTiming) -> Result<Control> {
        // Microseconds say all that there is to say.
        let seconds = |time: Duration| time.as_micros() as f64 / 1e6;
        self.lines.write(&Line {
            epoch: report.epoch,
            seconds: seconds(timing.train),
            images: timing.images,
            images_per_second: (timing.images_per_second * 100.0).round() / 100.0,
            load: seconds(timing.load_wait),
            forward: seconds(timing.forward),
            backward: seconds(timing.backward),
            optimizer: seconds(timing.optimizer),
            validation: seconds(timing.validate),
        })?;
        Ok(Control::Continue)
    }
}
