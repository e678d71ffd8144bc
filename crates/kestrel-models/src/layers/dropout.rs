//! Dropout whose masks are a function of the run's seed and the step.

use kestrel_kernels::DropoutKey;
use kestrel_kernels::tape::{Tape, Value};

use crate::Mode;

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
    pub fn forward(&self, tape: &mut Tape, x: &Value, mode: Mode) -> kestrel_kernels::Result<Value> {
        match mode {
            Mode::Eval => Ok(x.clone()),
            Mode::Train { seed, step } => {
                let layer = self.layer;
                tape.dropout(x, self.p, DropoutKey { seed, step, layer })
            }
        }
    }
}
