//! What listens to a run while it trains: the logs, the checkpoints, and what may end it.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use kestrel_models::weights::ModelInfo;
use kestrel_train::checkpoint::Checkpointer;
use kestrel_train::run_log::{MetricsCsv, MetricsLog, RunHeader, TensorBoard, ThroughputLog};
use kestrel_train::{Callback, EarlyStopping, NonFiniteDump, Progress as Done, TimeLimit};
use serde_json::Value;

use crate::config::TrainConfig;
use crate::environment;
use crate::exit::Exit;
use crate::interrupt::Interrupt;

/// How a training came to its end.
pub(super) enum Ending {
    /// All epochs are done, or early stopping has ended the run.
    Complete,
    /// A signal or the time limit has stopped it; it can be gone on with.
    Stopped(Stop),
}

/// What has stopped a run.
pub(super) enum Stop {
    Signal(Exit),
    MaxTime,
}

/// All listeners of a run but the progress bar.
pub(super) struct Listeners {
    interrupt: Interrupt,
    metrics: MetricsLog,
    csv: MetricsCsv,
    throughput: ThroughputLog,
    tensorboard: TensorBoard,
    checkpointer: Checkpointer,
    early_stopping: Option<EarlyStopping>,
    time_limit: Option<TimeLimit>,
    dump: NonFiniteDump,
}

impl Listeners {
    /// Opens the logs of a run in its folder, as they were at `progress`. `saved` is what each checkpoint keeps; the time limit
    /// counts from `started`.
    pub(super) fn new(
        folder: &Path,
        config: &TrainConfig,
        info: &ModelInfo,
        saved: &Value,
        progress: &Done,
        started: Instant,
    ) -> Result<Self> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let header = RunHeader {
            name: name.into_owned(),
            model: info.model.name().to_owned(),
            classes: info.classes.clone(),
            seed: config.seed,
            options: config.options_hash()?,
        };
        let writer = format!("{}.{}", environment::host(), std::process::id());
        let watched = config.early_stopping_metric.watched();
        Ok(Self {
            interrupt: Interrupt::listen()?,
            metrics: MetricsLog::open(folder, &header, progress)?,
            csv: MetricsCsv::new(folder),
            throughput: ThroughputLog::open(folder, progress)?,
            tensorboard: TensorBoard::create(folder, &writer, progress)?,
            checkpointer: Checkpointer::new(folder.to_owned(), info.clone(), saved.clone())
                .every(config.checkpoint_every.0)
                .keep_last(config.keep_last)
                .after_logs(vec![MetricsLog::path(folder)]),
            early_stopping: config
                .early_stopping_patience
                .map(|patience| EarlyStopping::new(watched, patience)),
            time_limit: config.max_time.map(|limit| TimeLimit::new(started, limit.0)),
            dump: NonFiniteDump::new(folder, saved.clone()),
        })
    }

    /// Sets the stage that the logs say, from 1.
    pub(super) fn set_stage(&mut self, stage: usize) {
        self.metrics.set_stage(stage);
    }

    /// Trains, with these listeners and more.
    pub(super) fn during(
        &mut self,
        more: &mut [&mut dyn Callback],
        train: impl FnOnce(&mut [&mut dyn Callback]) -> kestrel_train::Result<()>,
    ) -> Result<()> {
        let mut interrupt = self.interrupt.callback();
        // Files first: what is said of an epoch is then on its way to the disk, and a checkpoint's logs before it.
        let mut all: Vec<&mut dyn Callback> = vec![
            &mut self.metrics,
            &mut self.csv,
            &mut self.throughput,
            &mut self.tensorboard,
            &mut self.checkpointer,
        ];
        for callback in more {
            all.push(&mut **callback);
        }
        all.push(&mut self.dump);
        all.push(&mut interrupt);
        all.extend(self.early_stopping.as_mut().map(|c| c as &mut dyn Callback));
        all.extend(self.time_limit.as_mut().map(|c| c as &mut dyn Callback));
        let result = self.interrupt.during(|| train(&mut all));
        match self.dump.written() {
            Some(path) => {
                result.with_context(|| format!("training failed, and {} keeps what is known", path.display()))
            }
            None => Ok(result?),
        }
    }

    /// How a training that came to `done`, where `last_epoch` was to be its last, has ended.
    pub(super) fn ending(&self, folder: &Path, done: &Done, last_epoch: usize) -> Ending {
        if let Some(exit) = self.interrupt.asked(folder, done.step) {
            return Ending::Stopped(Stop::Signal(exit));
        }
        let early = self.early_stopping.as_ref().is_some_and(EarlyStopping::has_stopped);
        let limit = self.time_limit.as_ref().is_some_and(TimeLimit::is_over);
        if limit && !early && done.epoch < last_epoch {
            return Ending::Stopped(Stop::MaxTime);
        }
        Ending::Complete
    }
}
