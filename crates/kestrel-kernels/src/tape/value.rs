//! The values of a tape: data that ops have made, and how it is laid out in memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use candle_core::Tensor;

use crate::Result;
use crate::channels_last::batch_norm::rows;

/// A tensor within a section.
///
/// Cheap to clone. A value belongs to the tape that made it; ops refuse another tape's.
#[derive(Clone, Debug)]
pub struct Value(Form);

#[derive(Clone, Debug)]
enum Form {
    /// A tensor of candle's graph, which keeps its own record.
    Graph(Tensor),
    /// Contiguous, without a graph: `f32` on the CPU; `f32`, `bf16` or `f16` on a GPU, where the data is plain.
    Recorded {
        tape: u64,
        node: usize,
        data: Data,
        /// Whether [`Value::tensor`] has handed out the data. One flag for all clones of a value: they can be counted by it.
        lent: Arc<AtomicBool>,
    },
}

/// The data of a recorded value.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Plain(Tensor),
    Normalized(Arc<Normalized>),
}

/// What follows batch norm, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pointwise {
    Identity,
    Relu,
    Gelu,
}

/// `activation(x · scale + shift)` by channel: batch norm that is still to be applied. Readers that can apply it on load do.
#[derive(Debug)]
pub(crate) struct Normalized {
    /// `[..., C]`.
    pub(crate) x: Tensor,
    /// `[C]`, as the others.
    pub(crate) scale: Vec<f32>,
    pub(crate) shift: Vec<f32>,
    /// About the mean of `x`: sums of products are taken about it.
    pub(crate) center: Vec<f32>,
    pub(crate) activation: Pointwise,
    /// The result, once someone wanted it whole.
    pub(crate) whole: OnceLock<Tensor>,
}

impl Normalized {
    /// The normalised tensor.
    pub(crate) fn tensor(&self) -> Result<Tensor> {
        if let Some(whole) = self.whole.get() {
            return Ok(whole.clone());
        }
        let whole = rows::normalize(self)?;
        Ok(self.whole.get_or_init(|| whole).clone())
    }
}

impl Value {
    pub(crate) fn in_graph(tensor: Tensor) -> Self {
        Self(Form::Graph(tensor))
    }

    pub(crate) fn recorded(tape: u64, node: usize, data: Data) -> Self {
        Self(Form::Recorded {
            tape,
            node,
            data,
            lent: Arc::default(),
        })
    }

    /// The shape.
    pub fn dims(&self) -> &[usize] {
        self.shape_tensor().dims()
    }

    /// The value as a tensor. Within a recording section it carries no graph; see [`Tape::candle`](super::Tape::candle) for
    /// computing with it.
    ///
    /// # Errors
    /// Where candle fails.
    pub fn tensor(&self) -> Result<Tensor> {
        if let Form::Recorded { lent, .. } = &self.0 {
            lent.store(true, Ordering::Relaxed);
        }
        self.whole()
    }

    /// The value whole, for an op that drops the tensor when it has run, or [keeps](super::Tape::keep) its node.
    pub(crate) fn whole(&self) -> Result<Tensor> {
        match &self.0 {
            Form::Graph(tensor)
            | Form::Recorded {
                data: Data::Plain(tensor),
                ..
            } => Ok(tensor.clone()),
            Form::Recorded {
                data: Data::Normalized(normalized),
                ..
            } => normalized.tensor(),
        }
    }

    /// Gives the value up; says whether anyone else has it: a clone, or a tensor that was handed out.
    pub(super) fn give_up(self) -> bool {
        match self.0 {
            Form::Graph(_) => true,
            Form::Recorded { lent, .. } => Arc::into_inner(lent).is_none_or(AtomicBool::into_inner),
        }
    }

    /// A tensor of the value's shape and type, without making it whole.
    pub(crate) fn shape_tensor(&self) -> &Tensor {
        match &self.0 {
            Form::Graph(tensor)
            | Form::Recorded {
                data: Data::Plain(tensor),
                ..
            } => tensor,
            Form::Recorded {
                data: Data::Normalized(normalized),
                ..
            } => &normalized.x,
        }
    }

    pub(super) fn tape(&self) -> Option<u64> {
        match &self.0 {
            Form::Graph(_) => None,
            Form::Recorded { tape, .. } => Some(*tape),
        }
    }

    /// The node and the tensor of a value on a GPU.
    pub(crate) fn on_gpu(&self) -> Option<(usize, &Tensor)> {
        match &self.0 {
            Form::Recorded {
                node,
                data: Data::Plain(tensor),
                ..
            } if tensor.device().is_cuda() => Some((*node, tensor)),
            _ => None,
        }
    }

    /// The node and data of a recorded value.
    pub(crate) fn as_recorded(&self) -> Option<(usize, &Data)> {
        match &self.0 {
            Form::Graph(_) => None,
            Form::Recorded { node, data, .. } => Some((*node, data)),
        }
    }
}
