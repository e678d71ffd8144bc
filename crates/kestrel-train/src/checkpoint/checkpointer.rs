//! The callback that saves a run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use candle_core::Device;
use kestrel_models::StateDict;
use kestrel_models::weights::ModelInfo;

use super::disk::{Disk, LocalDisk};
use super::{Checkpoint, CheckpointFolder, Weights};
use crate::callback::EpochTiming;
use crate::progress::Position;
use crate::{Callback, Control, EpochReport, Error, Progress, Result, StepReport, Trainer};

/// The weights of the epoch with the best validation accuracy, in a run's folder.
pub const BEST_FILE: &str = "best.safetensors";

/// How often a run is saved within an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// Every so many steps of the optimiser.
    Steps(u64),
    /// At the first step after so much time.
    Time(Duration),
}

/// Saves the best weights whenever validation accuracy improves, and a checkpoint after every epoch, where the run is
/// stopped, and within an epoch as often as asked for.
///
/// The state is copied between two steps; it is hashed and written on a thread of its own, one file at a time and in order.
/// What goes wrong there ends the run at the next save, or at the end of the fit; that state is written all the same, for what
/// failed before may not fail again. A state in which a number is not finite is not saved.
pub struct Checkpointer {
    folder: PathBuf,
    info: ModelInfo,
    config: serde_json::Value,
    every: Option<Every>,
    keep_last: usize,
    disk: Arc<dyn Disk>,
    logs: Vec<PathBuf>,
    saved: Option<Saved>,
    /// The best weights, until they are known to be on the disk.
    best: Option<Arc<Best>>,
    writer: Option<JoinHandle<Result<()>>>,
}

/// What the last checkpoint holds.
struct Saved {
    at: Instant,
    place: Place,
    /// Whether that is not known to have failed.
    is_written: bool,
}

/// What tells the states of one run apart. Its losses are left out: one that is NaN is not even equal to itself.
#[derive(Clone, Copy, PartialEq)]
struct Place {
    epoch: usize,
    step: u64,
    samples_seen: u64,
    position: Option<Position>,
}

impl Place {
    fn of(progress: &Progress) -> Self {
        Self {
            epoch: progress.epoch,
            step: progress.step,
            samples_seen: progress.samples_seen,
            position: progress.position,
        }
    }
}

/// The weights of the best epoch, on the host.
struct Best {
    weights: StateDict,
    info: ModelInfo,
}

impl Checkpointer {
    /// `folder`, the run's, must exist; `config` is the program's own configuration, given back on resuming.
    pub fn new(folder: PathBuf, info: ModelInfo, config: serde_json::Value) -> Self {
        Self {
            folder,
            info,
            config,
            every: None,
            keep_last: 2,
            disk: Arc::new(LocalDisk),
            logs: Vec::new(),
            saved: None,
            best: None,
            writer: None,
        }
    }

    /// Saves within epochs too.
    #[must_use]
    pub fn every(mut self, every: Option<Every>) -> Self {
        self.every = every;
        self
    }

    /// Keeps the last `n` checkpoints, beside that of the best epoch; all for 0. [Default: 2.]
    #[must_use]
    pub fn keep_last(mut self, n: usize) -> Self {
        self.keep_last = n;
        self
    }

    /// Files that are written before a checkpoint speaks of what is in them: they are synced before it is committed.
    #[must_use]
    pub fn after_logs(mut self, logs: Vec<PathBuf>) -> Self {
        self.logs = logs;
        self
    }

    /// Saves to another disk than this machine's.
    #[must_use]
    pub fn on_disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = disk;
        self
    }

    /// Saves the trainer's state, which is one between two steps; nothing where it is saved already. Where the save before this
    /// one failed, its error is given once this one is under way.
    fn save(&mut self, trainer: &Trainer, improved: bool) -> Result<()> {
        let place = Place::of(trainer.progress());
        if !improved
            && self
                .saved
                .as_ref()
                .is_some_and(|saved| saved.is_written && saved.place == place)
        {
            return Ok(());
        }
        let span = tracing::debug_span!("checkpoint");
        let _guard = span.enter();
        let earlier = self.join();
        first(earlier, self.write(trainer, improved))
    }

    /// Copies the trainer's state, and begins to write it.
    fn write(&mut self, trainer: &Trainer, improved: bool) -> Result<()> {
        let progress = trainer.progress();
        let info = ModelInfo {
            // Of the last validation; none before the first.
            temperature: progress.history.last().and_then(|epoch| epoch.temperature),
            ..self.info.clone()
        };
        if improved {
            // To the host on this thread, as the checkpoint's tensors: on a GPU another thread's reads would be in the midst of
            // the passes that this one launches or records.
            let on_host = |(name, tensor): (String, candle_core::Tensor)| Ok((name, tensor.to_device(&Device::Cpu)?));
            let weights = trainer.validated_weights()?.into_iter().map(on_host);
            self.best = Some(Arc::new(Best {
                weights: weights.collect::<Result<_>>()?,
                info: info.clone(),
            }));
        }
        let job = Job {
            // Also those of an epoch before, whose save failed.
            best: self.best.clone(),
            checkpoint: Checkpoint::capture(trainer, &info, &self.config)?,
            folder: self.folder.clone(),
            step: progress.step,
            best_step: progress.best_step,
            keep_last: self.keep_last,
            logs: self.logs.clone(),
            disk: Arc::clone(&self.disk),
        };
        self.saved = Some(Saved {
            at: Instant::now(),
            place: Place::of(progress),
            is_written: true,
        });
        let writer = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || job.run());
        self.writer = Some(writer.map_err(|source| Error::Write {
            path: self.folder.clone(),
            source,
        })?);
        Ok(())
    }

    /// Waits for the file that is being written.
    fn join(&mut self) -> Result<()> {
        let result = match self.writer.take().map(JoinHandle::join) {
            None => return Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Error::Write {
                path: self.folder.clone(),
                source: std::io::Error::other("the thread that writes checkpoints panicked"),
            }),
        };
        if result.is_ok() {
            self.best = None;
        } else if let Some(saved) = &mut self.saved {
            // Nothing of that state may be on the disk.
            saved.is_written = false;
        }
        result
    }

    fn is_due(&self, step: u64) -> bool {
        let Some(saved) = &self.saved else {
            return false;
        };
        match self.every {
            None => false,
            Some(Every::Steps(steps)) => step > saved.place.step && step.is_multiple_of(steps.max(1)),
            Some(Every::Time(time)) => step > saved.place.step && saved.at.elapsed() >= time,
        }
    }
}

impl Callback for Checkpointer {
    fn on_fit_start(&mut self, trainer: &Trainer) -> Result<Control> {
        CheckpointFolder::of_run(&self.folder).prepare()?;
        // A run that begins, or that was just loaded, is not saved again.
        if self.saved.is_none() {
            self.saved = Some(Saved {
                at: Instant::now(),
                place: Place::of(trainer.progress()),
                is_written: true,
            });
        }
        Ok(Control::Continue)
    }

    fn wants_numbers(&self, trainer: &Trainer) -> bool {
        self.is_due(trainer.progress().step)
    }

    fn on_step_end(&mut self, trainer: &Trainer, report: &StepReport) -> Result<Control> {
        if report.settled && report.ends_step() && self.is_due(trainer.progress().step) {
            self.save(trainer, false)?;
        }
        Ok(Control::Continue)
    }

    fn on_epoch_end(&mut self, trainer: &Trainer, report: &EpochReport, _: &EpochTiming) -> Result<Control> {
        self.save(trainer, report.improved)?;
        Ok(Control::Continue)
    }

    fn on_fit_end(&mut self, trainer: &Trainer) -> Result<()> {
        // Waited for before it is asked whether this state is saved already: if that failed, it is tried once more.
        let earlier = self.join();
        let saved = self.save(trainer, false);
        first(first(earlier, saved), self.join())
    }

    fn on_error(&mut self, _: &Error) {
        // The run ends with its own error; what was being saved is whole or not there.
        if let Err(error) = self.join() {
            tracing::warn!("{error}");
        }
    }
}

/// The first of two errors, and the other to the log.
fn first(earlier: Result<()>, later: Result<()>) -> Result<()> {
    match (earlier, later) {
        (Err(earlier), Err(later)) => {
            tracing::warn!("{later}");
            Err(earlier)
        }
        (earlier, later) => earlier.and(later),
    }
}

/// A checkpoint on its way to the disk.
struct Job {
    best: Option<Arc<Best>>,
    checkpoint: Checkpoint,
    folder: PathBuf,
    step: u64,
    best_step: Option<u64>,
    keep_last: usize,
    logs: Vec<PathBuf>,
    disk: Arc<dyn Disk>,
}

impl Job {
    fn run(self) -> Result<()> {
        let disk = self.disk.as_ref();
        let sync = |path: &Path| {
            disk.sync_file(path).map_err(|source| Error::Write {
                path: path.to_owned(),
                source,
            })
        };
        self.logs.iter().try_for_each(|path| sync(path))?;
        let folder = CheckpointFolder::of_run(&self.folder);
        let path = folder.file(self.step);
        // The weights come first: a checkpoint that says "best" must never be older than the best file.
        if let Some(best) = &self.best {
            let path = self.folder.join(BEST_FILE);
            Weights::save_on(disk, &best.weights, &best.info, &path)?;
            tracing::debug!(path = %path.display(), "Best model saved");
        }
        self.checkpoint.save_on(disk, &path)?;
        tracing::debug!(path = %path.display(), "Checkpoint saved");
        folder.prune(disk, self.step, self.keep_last, self.best_step)
    }
}
