//! Progress bars. On anything but a terminal they draw nothing, and the log's plain lines are all there is.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kestrel_train::callback::{EpochStart, EpochTiming};
use kestrel_train::{Callback, Control, EpochReport, Result, StepReport, Trainer};

use crate::live_view::LiveView;

const TRAIN: &str = "{prefix} [{bar:30}] {pos}/{len} img  {msg}  eta {eta}";
const STEPS: &str = "{prefix} [{bar:30}] {pos}/{len}";
const BYTES: &str = "{prefix} [{bar:30}] {bytes}/{total_bytes}  {bytes_per_sec}  eta {eta}";

fn bar(bars: &MultiProgress, template: &str, prefix: String, len: u64) -> ProgressBar {
    let bar = bars.add(ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr()));
    // A template that does not parse leaves the library's own style, which is no reason to stop a run.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(prefix);
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// A bar that counts batches.
pub(crate) fn steps(bars: &MultiProgress, prefix: &str, len: u64) -> ProgressBar {
    bar(bars, STEPS, prefix.to_owned(), len)
}

/// A bar that counts bytes.
pub(crate) fn bytes(bars: &MultiProgress, prefix: &str, len: u64) -> ProgressBar {
    bar(bars, BYTES, prefix.to_owned(), len)
}

/// Draws an epoch's progress with images a second and the time left, and above it the last epochs as a table. Where nothing is
/// drawn, logs a line after each epoch.
pub(crate) struct Progress {
    bars: MultiProgress,
    epochs: usize,
    current: Option<ProgressBar>,
    images_done: u64,
    /// Of the epoch, before the run was resumed.
    images_before: u64,
    live: Option<LiveView>,
}

impl Progress {
    pub(crate) fn new(bars: &MultiProgress, epochs: usize) -> Self {
        Self {
            bars: bars.clone(),
            epochs,
            current: None,
            images_done: 0,
            images_before: 0,
            live: LiveView::new(bars),
        }
    }

    fn replace(&mut self, next: Option<ProgressBar>) {
        if let Some(bar) = std::mem::replace(&mut self.current, next) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }
}

impl Callback for Progress {
    fn on_epoch_start(&mut self, start: &EpochStart) -> Result<()> {
        self.images_before = start.samples_done;
        self.images_done = start.samples_done;
        let prefix = format!("Epoch [{}/{}]", start.epoch, self.epochs);
        let next = bar(&self.bars, TRAIN, prefix, start.num_samples as u64);
        self.replace(Some(next));
        Ok(())
    }

    fn on_step_end(&mut self, _: &Trainer, report: &StepReport) -> Result<Control> {
        self.images_done += report.batch_size as u64;
        if let Some(live) = &mut self.live {
            live.step(report.loss);
        }
        if let Some(bar) = &self.current {
            bar.set_position(self.images_done);
            let seen = self.images_done - self.images_before;
            let rate = seen as f64 / bar.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
            let percent = 100.0 * report.running_accuracy;
            bar.set_message(format!("{rate:.0} img/s  loss {:.4}  acc {percent:.2}%", report.loss));
        }
        Ok(Control::Continue)
    }

    fn on_validation_batch(&mut self, done: usize, total: usize) -> Result<Control> {
        if done == 1 {
            let next = steps(&self.bars, "Validation", total as u64);
            self.replace(Some(next));
        }
        if let Some(bar) = &self.current {
            bar.set_position(done as u64);
        }
        Ok(Control::Continue)
    }

    fn on_epoch_end(&mut self, _: &Trainer, report: &EpochReport, timing: &EpochTiming) -> Result<Control> {
        self.replace(None);
        if let Some(live) = &mut self.live {
            live.epoch(report, timing.images_per_second);
            return Ok(Control::Continue);
        }
        let EpochReport {
            epoch,
            train_loss,
            train_accuracy,
            val_loss,
            val_accuracy,
            lr,
            improved,
            ..
        } = *report;
        let seconds = timing.train.as_secs_f64();
        let wait = 100.0 * timing.load_wait.as_secs_f64() / seconds.max(f64::MIN_POSITIVE);
        tracing::info!(
            epoch,
            train_loss,
            train_accuracy,
            val_loss,
            val_accuracy,
            lr,
            improved,
            train_seconds = seconds,
            validate_seconds = timing.validate.as_secs_f64(),
            images_per_second = timing.images_per_second,
            load_wait_percent = wait,
            "Epoch [{epoch}/{}] done: Loss: {train_loss:.4}, Acc: {:.2}%, Val Loss: {val_loss:.4}, Val Acc: {:.2}%{}  \
             (lr {lr:.1e}, {seconds:.0} s, {:.0} img/s, loader wait {wait:.2}%)",
            self.epochs,
            100.0 * train_accuracy,
            100.0 * val_accuracy,
            if improved { ", best so far" } else { "" },
            timing.images_per_second,
        );
        Ok(Control::Continue)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.replace(None);
    }
}
