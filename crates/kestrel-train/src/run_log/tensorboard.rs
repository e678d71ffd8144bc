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
/// A file that goes on says so, and TensorBoard passes over what earlier files say of later steps.
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
        if progress.step > 0 {
            this.write(progress.step + 1, &Event::SessionStart)?;
        }
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
