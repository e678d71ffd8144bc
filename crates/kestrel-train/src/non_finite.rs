//! A step that came to numbers that are none: what is said of it, and the file that keeps it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use candle_core::backprop::GradStore;
use kestrel_kernels::update::squared_norm;
use serde_json::{Value, json};

use crate::checkpoint::write_atomic;
use crate::number;
use crate::optim::NamedVars;
use crate::{Callback, Error, Result};

/// How many samples an error names; the file has them all.
const NAMED: usize = 16;

/// A step whose loss or gradient is NaN or infinite. Its update was not made.
#[derive(Clone, Debug, PartialEq)]
pub struct NonFinite {
    /// The epoch, from 1.
    pub epoch: usize,
    /// The batch in the epoch, from 1.
    pub step: usize,
    /// Optimiser steps made before this one, since the run's start.
    pub steps_made: u64,
    /// The learning rate of each parameter group.
    pub lrs: Vec<f64>,
    /// The loss of the batch.
    pub loss: f64,
    /// The Euclidean norm of all gradients together.
    pub grad_norm: f64,
    /// The norm of each parameter's gradient.
    pub norms: BTreeMap<String, f64>,
    /// The indices of the step's samples in the training data.
    pub samples: Vec<usize>,
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            epoch,
            step,
            loss,
            grad_norm,
            samples,
            ..
        } = self;
        let lr = self.lrs.first().copied().unwrap_or_default();
        let (what, weights) = if loss.is_finite() {
            ("gradient is not finite", "")
        } else {
            // As PyTorch's, a mean over images whose classes all weigh 0 is NaN at any rate.
            ("loss is not finite", "the weights of the classes and ")
        };
        let named = &samples[..samples.len().min(NAMED)];
        write!(
            f,
            "the {what} at epoch {epoch}, step {step}: loss {loss}, gradient norm {grad_norm}, lr {lr:.3e}; the weights were \
             not changed by this step; lower the learning rate, or look at {weights}the samples {named:?}"
        )?;
        match samples.len() - named.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl NonFinite {
    /// Sets the gradients' norms.
    pub(crate) fn with_norms(mut self, grads: &GradStore, params: &NamedVars) -> Result<Self> {
        let mut sum = 0.0;
        for (name, var) in params {
            if let Some(grad) = grads.get(var) {
                let squares = squared_norm(grad)?;
                sum += squares;
                self.norms.insert(name.clone(), squares.sqrt());
            }
        }
        self.grad_norm = sum.sqrt();
        Ok(self)
    }

    /// All of it as JSON; numbers that are none are strings.
    pub fn to_json(&self) -> Value {
        let norms: BTreeMap<&str, Value> = self
            .norms
            .iter()
            .map(|(k, v)| (k.as_str(), number::to_json(*v)))
            .collect();
        json!({
            "epoch": self.epoch,
            "step": self.step,
            "steps_made": self.steps_made,
            "lrs": self.lrs,
            "loss": number::to_json(self.loss),
            "grad_norm": number::to_json(self.grad_norm),
            "samples": self.samples,
            "grad_norms": norms,
        })
    }
}

/// Keeps what is known of a step that ended a run, as `non-finite.json` in a folder.
pub struct NonFiniteDump {
    path: PathBuf,
    config: Value,
    written: bool,
}

impl NonFiniteDump {
    /// `folder` must exist; `config` is the program's own configuration, kept in the file.
    pub fn new(folder: &Path, config: Value) -> Self {
        Self {
            path: folder.join("non-finite.json"),
            config,
            written: false,
        }
    }

    /// The file, if it was written.
    pub fn written(&self) -> Option<&Path> {
        self.written.then_some(&self.path)
    }
}

impl Callback for NonFiniteDump {
    fn on_error(&mut self, error: &Error) {
        let Error::NonFinite(found) = error else {
            return;
        };
        let mut dump = found.to_json();
        dump["config"] = self.config.clone();
        match write_atomic(&self.path, format!("{dump:#}\n").as_bytes()) {
            Ok(()) => self.written = true,
            // The run ends with the error that this file is about.
            Err(error) => tracing::warn!("{error}"),
        }
    }
}
