//! Sections: a chain of ops with a backward of its own, which candle's graph sees as one op.
//!
//! candle's backward starts each gradient with a zero tensor and adds to it, and an op sees neither who made its input nor
//! who takes its output. On a CPU both cost passes over memory that a step of training cannot hide. Inside a [`section`],
//! ops are recorded on a [`Tape`] instead: a gradient is moved to where it goes and added to in place, batch norm's sums are
//! taken while the convolution's output is in cache, and a normalised tensor is never written where the next op can
//! normalise on load. Outside, the section's result is an ordinary tensor: `backward` reaches every variable that led to
//! it (and [`backward`], which is faster), and candle's ops may come before it, after it, and by [`Tape::candle`] in the middle.
//!
//! ```
//! use candle_core::{DType, Device, Tensor, Var};
//! use kestrel_kernels::{Conv2dConfig, tape};
//!
//! let images = Tensor::randn(0f32, 1f32, (2, 8, 8, 3), &Device::Cpu)?;
//! let weight = Var::randn(0f32, 0.1f32, (16, 3, 3, 3), &Device::Cpu)?;
//! let scale = Var::ones(16, DType::F32, &Device::Cpu)?;
//! let same = Conv2dConfig { padding: 1, ..Conv2dConfig::default() };
//!
//! let features = tape::section(|tape| {
//!     let x = tape.leaf(&images)?;
//!     let x = tape.conv2d(&x, &weight, None, &same)?;
//!     let x = tape.candle(&[&x], |x| Ok(x[0].broadcast_mul(&scale)?))?;
//!     tape.max_pool2d(&x, 2, 2, 0)
//! })?;
//! assert_eq!(features.dims(), [2, 4, 4, 16]);
//! let grads = features.sqr()?.mean_all()?.backward()?;
//! assert!(grads.get(&weight).is_some() && grads.get(&scale).is_some());
//! # kestrel_kernels::Result::Ok(())
//! ```
//!
//! Recording is for `f32` on the CPU and, with the `cuda` feature, on an NVIDIA GPU, where the ops are those of
//! `kestrel_kernels::cuda`. Of any other leaf, the ops of a tape are those of candle's graph with the same
//! numbers, so a model is written once.

mod add;
mod backward;
mod boundary;
mod candle;
mod gradient;
mod value;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Tensor, TensorId};

pub use backward::{backward, for_backward};
pub(crate) use boundary::{elements, tensor};
pub(crate) use gradient::{Elements, Gated, Gradient, Gradients};
pub use value::Value;
pub(crate) use value::{Data, Normalized, Pointwise};

use crate::autocast::Precision;
use crate::{Error, Result};

/// Runs `f` and returns its value as the result of one op, through which gradients reach every leaf that a variable
/// leads to.
///
/// # Errors
/// Those of `f`.
pub fn section(f: impl FnOnce(&mut Tape) -> Result<Value>) -> Result<Tensor> {
    Tape::new(true).run(f)
}

/// Runs `f` without recording: the result has no graph, and nothing is kept for a backward. `torch.no_grad` for a section.
///
/// # Errors
/// Those of `f`.
pub fn inference(f: impl FnOnce(&mut Tape) -> Result<Value>) -> Result<Tensor> {
    Tape::new(false).run(f)
}

/// What has been computed in a section, in order.
pub struct Tape {
    id: u64,
    recording: bool,
    nodes: Vec<Node>,
    records: Vec<Record>,
    leaves: HashMap<TensorId, usize>,
    /// The tensors of the leaves that need a gradient, in the order of their first use.
    tracked: Vec<(Tensor, usize)>,
}

/// What is known of a value besides its data.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) needs_grad: bool,
    /// The form that its gradient must take, if it is not plain.
    pub(crate) normalized: Option<Arc<Normalized>>,
    /// Whether something besides the node's values reads its data: a record in the backward, or the caller.
    kept: bool,
    /// The type whose numbers alone the value has, if it was rounded.
    rounded: Option<Precision>,
}

/// An op that has run.
pub(crate) struct Record {
    output: usize,
    op: Box<dyn Backward>,
}

/// The backward of an op.
pub(crate) trait Backward: Send + Sync {
    /// Turns the gradient of the op's output into those of its inputs. May be called more than once.
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()>;
}

impl Tape {
    fn new(recording: bool) -> Self {
        static TAPES: AtomicU64 = AtomicU64::new(0);
        Self {
            id: TAPES.fetch_add(1, Ordering::Relaxed),
            recording,
            nodes: Vec::new(),
            records: Vec::new(),
            leaves: HashMap::new(),
            tracked: Vec::new(),
        }
    }

    fn run(mut self, f: impl FnOnce(&mut Tape) -> Result<Value>) -> Result<Tensor> {
        let value = f(&mut self)?;
        self.check(&value)?;
        #[cfg(feature = "cuda")]
        let value = {
            // Dropped here: the result's memory is given away if nobody else holds it.
            let given = value;
            crate::cuda::convert(&mut self, &given, DType::F32)?
        };
        boundary::close(self, value)
    }

    /// A tensor from outside as a value; the section's result carries gradients back to it.
    ///
    /// # Errors
    /// Where candle cannot lay it out contiguously.
    pub fn leaf(&mut self, tensor: &Tensor) -> Result<Value> {
        let has_kernels = tensor.device().is_cpu() || cfg!(feature = "cuda") && tensor.device().is_cuda();
        if !has_kernels || tensor.dtype() != DType::F32 {
            return Ok(self.in_graph(tensor.clone()));
        }
        let node = self.leaf_node(tensor);
        Ok(Value::recorded(
            self.id,
            node,
            Data::Plain(tensor.contiguous()?.detach()),
        ))
    }

    /// Whether this tape records, as [`section`]'s does and [`inference`]'s does not.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// The node of a leaf, made at its first use.
    pub(crate) fn leaf_node(&mut self, tensor: &Tensor) -> usize {
        if let Some(node) = self.leaves.get(&tensor.id()) {
            return *node;
        }
        let needs_grad = self.recording && tensor.track_op();
        let node = self.node(needs_grad, None);
        // Its memory is the caller's.
        self.nodes[node].kept = true;
        self.leaves.insert(tensor.id(), node);
        if needs_grad {
            self.tracked.push((tensor.clone(), node));
        }
        node
    }

    /// Makes `tensor`, which a node holds, stand for that node where an op takes it for a leaf.
    pub(crate) fn name_leaf(&mut self, tensor: &Tensor, node: usize) {
        self.keep(node);
        self.leaves.insert(tensor.id(), node);
    }

    /// To what a node's value was rounded.
    pub(crate) fn rounded_to(&self, node: usize) -> Option<Precision> {
        self.nodes[node].rounded
    }

    pub(crate) fn set_rounded(&mut self, node: usize, precision: Precision) {
        self.nodes[node].rounded = Some(precision);
    }

    /// A new value of plain data.
    pub(crate) fn plain(&mut self, needs_grad: bool, tensor: Tensor) -> Value {
        let node = self.node(needs_grad, None);
        Value::recorded(self.id, node, Data::Plain(tensor))
    }

    /// A value of candle's graph, or of none where nothing is recorded.
    pub(crate) fn in_graph(&self, tensor: Tensor) -> Value {
        Value::in_graph(if self.recording { tensor } else { tensor.detach() })
    }

    /// A new value that is another's normalised.
    pub(crate) fn normalized(&mut self, needs_grad: bool, normalized: Arc<Normalized>) -> Value {
        let node = self.node(needs_grad, Some(Arc::clone(&normalized)));
        Value::recorded(self.id, node, Data::Normalized(normalized))
    }

    fn node(&mut self, needs_grad: bool, normalized: Option<Arc<Normalized>>) -> usize {
        self.nodes.push(Node {
            needs_grad,
            normalized,
            kept: false,
            rounded: None,
        });
        self.nodes.len() - 1
    }

    /// Whether something needs the gradient of a node.
    pub(crate) fn needs_grad(&self, node: usize) -> bool {
        self.nodes[node].needs_grad
    }

    /// Says that something besides its values reads the node's data: it must not be given away as the section's result.
    pub(crate) fn keep(&mut self, node: usize) {
        self.nodes[node].kept = true;
    }

    /// Records the op that made a value, if its gradient is needed.
    pub(crate) fn record(&mut self, output: &Value, op: impl Backward + 'static) {
        if let Some((output, _)) = output.as_recorded()
            && self.needs_grad(output)
        {
            let op = Box::new(op);
            self.records.push(Record { output, op });
        }
    }

    /// Errors unless `value` is of this tape, or of candle's graph.
    pub(crate) fn check(&self, value: &Value) -> Result<()> {
        if value.tape().is_none_or(|tape| tape == self.id) {
            return Ok(());
        }
        Err(Error::ForeignValue)
    }
}

#[cfg(test)]
mod tests;
