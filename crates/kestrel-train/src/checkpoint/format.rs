//! The two files: weights alone, and the whole state of a run.
//!
//! Both are safetensors files whose JSON record says what they hold, with a sha256 over every tensor and the rest of the record, so
//! that a changed bit anywhere is noticed. A checkpoint's tensors are named `model.<parameter>`, `optimizer.<kind>.<parameter>`
//! and, where the weights are averaged, `average.<parameter>`.

use std::path::Path;

use candle_core::Device;
use kestrel_kernels::update::squared_norm;
use kestrel_models::weights::{ModelInfo, parse, read, serialise};
use kestrel_models::{Model, Params, StateDict};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::disk::{Disk, LocalDisk};
use super::write_atomic_on;
use crate::grad_scaler::{GradScaler, GradScalerState};
use crate::weight_average::WeightAverage;
use crate::{Error, Progress, Result, Trainer};

/// 2: with a hash.
const WEIGHTS_FORMAT: u32 = 2;
/// Its place in a record while it is worked out.
const BLANK: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// 2: within an epoch too, and another hash.
const FORMAT: u32 = 2;
const MODEL: &str = "model.";
const OPTIMIZER: &str = "optimizer.";
const AVERAGE: &str = "average.";

/// A model's weights and what they belong to.
#[derive(Debug)]
pub struct Weights {
    /// The network, its classes and its preprocessing.
    pub info: ModelInfo,
    /// Parameters and buffers by PyTorch's names.
    pub tensors: StateDict,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightsRecord {
    format: u32,
    info: ModelInfo,
    /// Over the tensors, and over this record with [`BLANK`] in its place; none in format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

impl Weights {
    /// Writes a model's weights to a file.
    ///
    /// # Errors
    /// [`Error::Write`]; what stood at `path` is untouched.
    pub fn save(params: &Params, info: &ModelInfo, path: &Path) -> Result<()> {
        Self::save_state_dict(&params.state_dict()?, info, path)
    }

    /// Writes weights to a file.
    ///
    /// # Errors
    /// [`Error::Write`]; what stood at `path` is untouched.
    pub fn save_state_dict(tensors: &StateDict, info: &ModelInfo, path: &Path) -> Result<()> {
        Self::save_on(&LocalDisk, tensors, info, path)
    }

    pub(super) fn save_on(disk: &dyn Disk, tensors: &StateDict, info: &ModelInfo, path: &Path) -> Result<()> {
        require_finite(tensors, path)?;
        let record = |sha256: &str| {
            let record = WeightsRecord {
                format: WEIGHTS_FORMAT,
                info: info.clone(),
                sha256: Some(sha256.to_owned()),
            };
            to_json(&record, path)
        };
        let sha256 = hash(&serialise(tensors, "")?, &record(BLANK)?).map_err(|reason| invalid(path, &reason))?;
        write_atomic_on(disk, path, &serialise(tensors, &record(&sha256)?)?)
    }

    /// Reads weights that Kestrel wrote, from a weight file or from a checkpoint; the average, where it holds one. Their hash is
    /// checked, which only a weight file of an earlier version lacks.
    ///
    /// # Errors
    /// A file that cannot be read, was changed, or is no such file; [`Error::NoRecord`] for tensors alone.
    pub fn load(path: &Path) -> Result<Self> {
        let file = read(path)?;
        let record = file.record.ok_or_else(|| Error::NoRecord { path: path.to_owned() })?;
        if serde_json::from_str::<Sealed>(&record).is_ok() {
            let checkpoint = Checkpoint::load(path)?;
            let averaged = checkpoint.body.averaged.is_some_and(|count| count > 0);
            return Ok(Self {
                info: checkpoint.body.info,
                tensors: strip(&checkpoint.tensors, if averaged { AVERAGE } else { MODEL }),
            });
        }
        let WeightsRecord { format, info, sha256 } =
            serde_json::from_str(&record).map_err(|e| invalid(path, &format!("its record: {e}")))?;
        match (format, sha256) {
            (1, None) => {}
            (WEIGHTS_FORMAT, Some(sha256)) => {
                require_hash(&bytes_of(path)?, &record.replacen(&sha256, BLANK, 1), &sha256, path)?;
            }
            _ => {
                let reason = format!("it has format {format}, this version reads formats 1 and {WEIGHTS_FORMAT}");
                return Err(invalid(path, &reason));
            }
        }
        Ok(Self {
            info,
            tensors: file.tensors,
        })
    }
}

/// The whole state of a run between two steps of its optimiser.
#[derive(Debug)]
pub struct Checkpoint {
    tensors: StateDict,
    body: Body,
}

/// The key of the record in a file's header, as `kestrel-models` writes it.
const RECORD: &str = "kestrel";

/// The format, which is read before all else of a record.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// The record's outer layer: the hash, and the text that it covers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    sha256: String,
    checkpoint: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Body {
    format: u32,
    info: ModelInfo,
    progress: Progress,
    seed: u64,
    /// The program's version.
    version: String,
    /// Of each parameter group.
    lrs: Vec<f64>,
    scheduler: Option<serde_json::Value>,
    /// How many states the averaged weights are made of, where an average is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    averaged: Option<u64>,
    /// Where the loss is scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grad_scaler: Option<GradScalerState>,
    config: serde_json::Value,
}

impl Checkpoint {
    /// The state of a trainer. `config` is the program's own configuration, kept to be given back on resuming.
    ///
    /// # Errors
    /// Where a device cannot copy.
    pub fn capture(trainer: &Trainer, info: &ModelInfo, config: &serde_json::Value) -> Result<Self> {
        // Copies, on the host: the trainer goes on while they are written.
        let mut tensors = StateDict::new();
        for (name, tensor) in trainer.model().params().state_dict()? {
            tensors.insert(format!("{MODEL}{name}"), tensor.to_device(&Device::Cpu)?);
        }
        for (name, tensor) in trainer.optimizer().state_dict()? {
            tensors.insert(format!("{OPTIMIZER}{name}"), tensor.to_device(&Device::Cpu)?);
        }
        for (name, tensor) in trainer.average().and_then(WeightAverage::weights).into_iter().flatten() {
            tensors.insert(format!("{AVERAGE}{name}"), tensor.copy()?.to_device(&Device::Cpu)?);
        }
        let body = Body {
            format: FORMAT,
            info: info.clone(),
            progress: trainer.progress().clone(),
            seed: trainer.config().seed,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            lrs: trainer.optimizer().lrs(),
            scheduler: trainer
                .scheduler()
                .map(crate::lr_scheduler::LrScheduler::state)
                .transpose()?,
            averaged: trainer.average().map(WeightAverage::count),
            grad_scaler: trainer.grad_scaler().map(GradScaler::state),
            config: config.clone(),
        };
        Ok(Self { tensors, body })
    }

    /// Writes the checkpoint to a file.
    ///
    /// # Errors
    /// [`Error::Write`]; what stood at `path` is untouched.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.save_on(&LocalDisk, path)
    }

    pub(super) fn save_on(&self, disk: &dyn Disk, path: &Path) -> Result<()> {
        require_finite(&self.tensors, path)?;
        let checkpoint = to_json(&self.body, path)?;
        // The hash stands in the header, so the tensors are laid out before it is known, and again with it.
        let unsealed = serialise(&self.tensors, "")?;
        let sealed = Sealed {
            sha256: hash(&unsealed, &checkpoint).map_err(|reason| invalid(path, &reason))?,
            checkpoint,
        };
        drop(unsealed);
        write_atomic_on(disk, path, &serialise(&self.tensors, &to_json(&sealed, path)?)?)
    }

    /// Reads a checkpoint and checks its hash.
    ///
    /// # Errors
    /// [`Error::Read`], or [`Error::InvalidCheckpoint`] for a file that is cut, changed, or something else.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = bytes_of(path)?;
        // All of the header, and the hash, before a tensor is made: a file costs no more than twice its size in memory.
        let sealed = sealed(&bytes, path)?;
        require_hash(&bytes, &sealed.checkpoint, &sealed.sha256, path)?;
        let format = serde_json::from_str::<FormatOnly>(&sealed.checkpoint);
        let format = format.map_err(|e| invalid(path, &e.to_string()))?.format;
        if format != FORMAT {
            let reason = format!("it has format {format}, this version reads format {FORMAT}");
            return Err(invalid(path, &reason));
        }
        let body: Body = serde_json::from_str(&sealed.checkpoint).map_err(|e| invalid(path, &e.to_string()))?;
        let file = parse(&bytes, path).map_err(|e| invalid(path, &e.to_string()))?;
        Ok(Self {
            tensors: file.tensors,
            body,
        })
    }

    /// The version of the program that wrote it.
    pub fn version(&self) -> &str {
        &self.body.version
    }

    /// The network, its classes and its preprocessing.
    pub fn info(&self) -> &ModelInfo {
        &self.body.info
    }

    /// How far the run had come.
    pub fn progress(&self) -> &Progress {
        &self.body.progress
    }

    /// The program's configuration, as given to [`Checkpoint::capture`].
    pub fn config(&self) -> &serde_json::Value {
        &self.body.config
    }

    /// Sets a model to the weights of this state, for what must be known of them before there is a trainer to restore.
    ///
    /// # Errors
    /// A model error that lists every tensor that does not fit; nothing was changed.
    pub fn restore_weights(&self, model: &dyn Model) -> Result<()> {
        Ok(model.params().load_state_dict(&strip(&self.tensors, MODEL))?)
    }

    /// Sets a trainer to this state, so that it continues as though it had never stopped.
    ///
    /// # Errors
    /// [`Error::CheckpointMismatch`] or a model error that lists every tensor that does not fit. The trainer
    /// may then be set in part, and must be thrown away.
    pub fn restore(&self, trainer: &mut Trainer) -> Result<()> {
        if trainer.config().seed != self.body.seed {
            let reason = format!("its seed is {}, the run's is {}", self.body.seed, trainer.config().seed);
            return Err(Error::CheckpointMismatch { reason });
        }
        let like = trainer.model().params().state_dict()?;
        match (trainer.average_mut(), self.body.averaged) {
            (Some(average), Some(count)) => average.load(count, &strip(&self.tensors, AVERAGE), &like)?,
            (None, None) => {}
            _ => {
                let reason = "one averages its weights and the other does not".to_owned();
                return Err(Error::CheckpointMismatch { reason });
            }
        }
        match (trainer.grad_scaler_mut(), self.body.grad_scaler) {
            (Some(scaler), Some(state)) => scaler.load_state(state),
            (None, None) => {}
            _ => {
                let reason = "one scales its loss and the other does not".to_owned();
                return Err(Error::CheckpointMismatch { reason });
            }
        }
        let (model, optimizer, scheduler) = trainer.restore_parts();
        let lrs = &self.body.lrs;
        if lrs.len() != optimizer.lrs().len() {
            let (groups, were) = (optimizer.lrs().len(), lrs.len());
            let reason = format!("the optimiser has {groups} parameter groups, the checkpoint's had {were}");
            return Err(Error::CheckpointMismatch { reason });
        }
        match (scheduler, &self.body.scheduler) {
            (Some(scheduler), Some(state)) => scheduler.load_state(state)?,
            (None, None) => {}
            _ => {
                let reason = "one has a scheduler and the other has none".to_owned();
                return Err(Error::CheckpointMismatch { reason });
            }
        }
        model.params().load_state_dict(&strip(&self.tensors, MODEL))?;
        optimizer.load_state_dict(&strip(&self.tensors, OPTIMIZER))?;
        optimizer.set_lrs(lrs);
        trainer.set_progress(self.body.progress.clone());
        Ok(())
    }
}

fn invalid(path: &Path, reason: &str) -> Error {
    Error::InvalidCheckpoint {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

fn to_json(value: &impl Serialize, path: &Path) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::Write {
        path: path.to_owned(),
        source: e.into(),
    })
}

/// The tensors whose names begin with `prefix`, without it.
fn strip(tensors: &StateDict, prefix: &str) -> StateDict {
    tensors
        .iter()
        .filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.to_owned(), t.clone())))
        .collect()
}

/// The record of a checkpoint's file, whose tensors are not looked at.
fn sealed(bytes: &[u8], path: &Path) -> Result<Sealed> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| invalid(path, &e.to_string()))?;
    let record = metadata.metadata().as_ref().and_then(|m| m.get(RECORD));
    let record = record.ok_or_else(|| invalid(path, "it has no record of a run"))?;
    serde_json::from_str(record).map_err(|_| invalid(path, "it holds weights alone, or another program's tensors"))
}

fn bytes_of(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

/// Errors unless the tensors of a file and a record have that [`hash`].
fn require_hash(file: &[u8], record: &str, sha256: &str, path: &Path) -> Result<()> {
    if hash(file, record).map_err(|reason| invalid(path, &reason))? != sha256 {
        let reason = "its contents do not match their sha256: the file was changed or damaged, or an earlier version's";
        return Err(invalid(path, reason));
    }
    Ok(())
}

/// sha256 over the tensors of a file and a record, as hex: of each tensor, by name, its name, type, shape and bytes, each
/// with its length before it.
fn hash(file: &[u8], record: &str) -> std::result::Result<String, String> {
    let file = SafeTensors::deserialize(file).map_err(|e| e.to_string())?;
    let mut tensors = file.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let mut hasher = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(record.as_bytes());
    for (name, tensor) in tensors {
        field(name.as_bytes());
        field(format!("{:?} {:?}", tensor.dtype(), tensor.shape()).as_bytes());
        field(tensor.data());
    }
    Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// Errors where a number is NaN or infinite: such a state is of no use to anybody.
fn require_finite(tensors: &StateDict, path: &Path) -> Result<()> {
    for (name, tensor) in tensors {
        if tensor.dtype().is_float() && !squared_norm(tensor)?.is_finite() {
            return Err(Error::NonFiniteState {
                path: path.to_owned(),
                tensor: name.clone(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
