//! Dropout whose masks are a function of the run's seed and the step.

use candle_core::Tensor;
use kestrel_kernels::{DropoutKey, dropout};

use crate::{Mode, Result};

/// Zeroes each element with probability `p` in training and scales the rest by `1 / (1 - p)`.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    p: f64,
    layer: u64,
}

impl Dropout {
    /// `layer` tells this layer's masks from those of the model's other dropout layers.
    pub fn new(p: f64, layer: u64) -> Self {
        Self { p, layer }
    }

    /// The input itself when evaluating.
    ///
    /// # Errors
    /// Where `p` is not in `[0, 1]`.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        match mode {
            Mode::Eval => Ok(x.clone()),
            Mode::Train { seed, step } => Ok(dropout(
                x,
                self.p,
                DropoutKey {
                    seed,
                    step,
                    layer: self.layer,
                },
            )?),
        }
    }
}
