//! TensorBoard's event files: `tensorboard --logdir runs` draws loss, accuracy and learning rate over the steps.

mod event;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::callback::EpochTiming;
use crate::{Callback, Control, EpochReport, Error, Progress, Result, StepReport, Trainer};

use event::{Event, record};

/// Writes scalars to an event file in a run's folder, a new one each time that the run starts or goes on.
///
/// Each begins with where the run goes on, and TensorBoard passes over what earlier files say of later steps. A run that begins
/// again in its folder goes on after step 0: what earlier files say is all passed over.
pub struct TensorBoard {
    path: PathBuf,
    file: File,
}

impl TensorBoard {
    /// Makes the file. `writer` tells the files of two machines, or of two processes, apart.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn create(folder: &Path, writer: &str, progress: &Progress) -> Result<Self> {
        let path = folder.join(format!("events.out.tfevents.{:010}.{writer}", now() as u64));
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let mut this = Self {
            file: file.map_err(|source| Error::Write {
                path: path.clone(),
                source,
            })?,
            path,
        };
        this.write(0, &Event::FileVersion)?;
        this.write(progress.step + 1, &Event::SessionStart)?;
        Ok(this)
    }

    fn write(&mut self, step: u64, event: &Event<'_>) -> Result<()> {
        let bytes = record(&event.encode(now(), step));
        self.file.write_all(&bytes).map_err(|source: io::Error| Error::Write {
            path: self.path.clone(),
            source,
        })
    }

    fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> Result<()> {
        scalars.iter().try_for_each(|(tag, value)| {
            self.write(
                step,
                &Event::Scalar {
                    tag,
                    value: *value as f32,
                },
            )
        })
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |time| time.as_secs_f64())
}

impl Callback for TensorBoard {
    fn on_step_end(&mut self, trainer: &Trainer, report: &StepReport) -> Result<Control> {
        if let Some(loss) = report.mean_loss {
            let step = trainer.progress().step;
            self.scalars(step, &[("loss/train_steps", loss), ("lr", report.lr)])?;
            if let Some(norm) = report.grad_norm {
                self.scalars(step, &[("grad_norm", norm)])?;
            }
            if let Some(scaler) = trainer.grad_scaler() {
                let skipped = scaler.skipped() as f64;
                self.scalars(step, &[("loss_scale", scaler.scale()), ("skipped_steps", skipped)])?;
            }
        }
        Ok(Control::Continue)
    }

    fn on_epoch_end(&mut self, _: &Trainer, report: &EpochReport, timing: &EpochTiming) -> Result<Control> {
        let scalars = [
            ("loss/train", report.train_loss),
            ("loss/val", report.val_loss),
            ("accuracy/train", report.train_accuracy),
            ("accuracy/val", report.val_accuracy),
            ("epoch", report.epoch as f64),
            ("images_per_second", timing.images_per_second),
        ];
        self.scalars(report.step, &scalars)?;
        Ok(Control::Continue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows the time in each event of a file.
    fn events(path: &Path) -> Vec<Vec<u8>> {
        let bytes = std::fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut events = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            // A checksum after the length, a tag and eight bytes of time, and a checksum after the event.
            events.push(rest[12 + 9..12 + length].to_vec());
            rest = &rest[12 + length + 4..];
        }
        events
    }

    #[test]
    fn every_file_says_from_where_on_it_tells_also_that_of_a_run_that_begins_again() {
        for (step, varint) in [(0, &[1][..]), (300, &[0xad, 2])] {
            let dir = tempfile::tempdir().unwrap();
            let progress = Progress {
                step,
                ..Progress::default()
            };
            let board = TensorBoard::create(dir.path(), "here", &progress).unwrap();
            let events = events(&board.path);
            // Field 2, the step; field 7, a session log whose status is START.
            let start = [&[0x10], varint, &[0x3a, 2, 8, 1]].concat();
            assert_eq!(events.len(), 2);
            assert!(events[0].ends_with(b"brain.Event:2"));
            assert_eq!(events[1], start, "after step {step}");
        }
    }
}
