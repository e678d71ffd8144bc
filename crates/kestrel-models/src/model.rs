//! What a classifier is to the rest of the workspace.

use candle_core::Tensor;
use kestrel_kernels::tape::{self, Tape, Value};

use crate::{Params, Result};

/// How a forward pass runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics in batch norm (the running ones move), dropout on.
    Train {
        /// The run's seed.
        seed: u64,
        /// The optimiser step, from 0; with the seed it decides the dropout masks.
        step: u64,
    },
    /// Running statistics in batch norm, dropout off, and no graph: as under `torch.no_grad`.
    Eval,
}

impl Mode {
    /// Whether this is a training pass.
    pub fn is_train(self) -> bool {
        matches!(self, Mode::Train { .. })
    }

    /// Runs the image part of a net: one op of candle's graph in training, without a graph otherwise.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn section(self, f: impl FnOnce(&mut Tape) -> kestrel_kernels::Result<Value>) -> Result<Tensor> {
        let result = if self.is_train() {
            tape::section(f)
        } else {
            tape::inference(f)
        };
        Ok(result?)
    }
}

/// An image classifier.
///
/// The logits carry candle's graph, so `loss.backward()` reaches the parameters; a model may mix the layers of this
/// crate with any of candle's.
pub trait Model: Send + Sync {
    /// The logits of a batch.
    ///
    /// # Shapes
    /// `images [N, 3, H, W]`, normalised → `[N, num_classes]`.
    ///
    /// # Errors
    /// [`crate::Error::InputShape`] where the images are not what the model takes.
    fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor>;

    /// Parameters and buffers, by PyTorch's names.
    fn params(&self) -> &Params;

    /// How many classes the logits tell apart.
    fn num_classes(&self) -> usize;
}
