//! Where a tape meets candle's graph.
//!
//! A custom op of candle's has at most three arguments, a section any number of leaves. So each leaf becomes an argument of
//! a [`LeafOp`], whose result is a single float, the *token*; the next leaf's op takes that token too, and the section's op
//! takes the last one. In the backward the section's op comes first: it runs the tape and leaves the leaves' gradients where
//! their ops find them.
//!
//! A section for [`backward`](super::backward()) alone hands the variables' gradients to it itself. It links one of them, so that
//! candle's graph leads to it at all, and what is no variable.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Device, InplaceOp1, Layout, Shape, Tensor};

use super::backward::{alone, collect};
use super::gradient::Elements;
use super::{Gradient, Gradients, Node, Record, Tape, Value};
use crate::{Result, element};

const OP: &str = "section";

/// Gradients of the leaves, by node, between the section's op and theirs.
type LeafGradients = Arc<Mutex<HashMap<usize, Gradient>>>;

/// The section's value as a tensor of candle's graph.
pub(super) fn close(tape: Tape, value: Value) -> Result<Tensor> {
    let tensor = value.whole()?;
    let Some((node, _)) = value.as_recorded() else {
        return Ok(tensor);
    };
    if !tape.needs_grad(node) {
        return Ok(tensor);
    }
    let kept = tape.nodes[node].kept || tape.nodes[node].normalized.is_some();
    let lent = value.give_up();
    let is_shared = lent || kept;
    let leaf_gradients = LeafGradients::default();
    let (handed, linked) = links(tape.tracked);
    let mut token = Tensor::zeros((), DType::F32, tensor.device())?;
    for (leaf, node) in &linked {
        token = token.apply_op2(
            leaf,
            LeafOp {
                node: *node,
                gradients: Arc::clone(&leaf_gradients),
            },
        )?;
    }
    let shape = tensor.shape().clone();
    Ok(token.apply_op1(SectionOp {
        result: Mutex::new(Some(Handed::new(tensor, is_shared)?)),
        shape,
        node,
        nodes: tape.nodes,
        records: tape.records,
        linked: linked.into_iter().map(|(_, node)| node).collect(),
        handed,
        leaf_gradients,
    })?)
}

/// Leaves with their nodes.
type Leaves = Vec<(Tensor, usize)>;

/// The leaves whose gradients the section hands to `backward` itself, and those that candle's graph leads to.
fn links(tracked: Leaves) -> (Leaves, Leaves) {
    if !alone() {
        return (Leaves::new(), tracked);
    }
    let (mut handed, mut linked): (Leaves, Leaves) = tracked.into_iter().partition(|(leaf, _)| leaf.is_variable());
    if linked.is_empty() {
        linked.extend(handed.pop());
    }
    (handed, linked)
}

/// A section's result on its way to candle.
enum Handed {
    Cpu(Vec<f32>),
    #[cfg(feature = "cuda")]
    Cuda(candle_core::CudaStorage),
}

impl Handed {
    /// The elements of a tensor; copied if others hold it too.
    fn new(tensor: Tensor, is_shared: bool) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if tensor.device().is_cuda() {
            let context = crate::cuda::Context::of(tensor.device())?;
            let own = if is_shared { tensor.copy()? } else { tensor };
            return Ok(Self::Cuda(crate::cuda::take(&context, &own)?));
        }
        if is_shared {
            return Ok(Self::Cpu(Elements::Shared(tensor).into_vec()?));
        }
        Ok(Self::Cpu(take(&tensor)?))
    }
}

/// The elements of a contiguous tensor that nobody reads again, without a copy.
fn take(tensor: &Tensor) -> Result<Vec<f32>> {
    struct Take(Mutex<Vec<f32>>);
    impl InplaceOp1 for Take {
        fn name(&self) -> &'static str {
            OP
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, _layout: &Layout) -> candle_core::Result<()> {
            if let CpuStorage::F32(elements) = storage {
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = std::mem::take(elements);
            }
            Ok(())
        }
    }
    // candle takes an empty tensor's strides of 0 for a tensor that repeats an element, and would not hand it out.
    if tensor.layout().start_offset() != 0 || tensor.elem_count() == 0 {
        return Elements::Shared(tensor.clone()).into_vec();
    }
    let taken = Take(Mutex::default());
    tensor.inplace_op1(&taken)?;
    Ok(taken.0.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The section as candle's graph sees it: from the last token to the result.
struct SectionOp {
    /// Until the forward has handed it out.
    result: Mutex<Option<Handed>>,
    shape: Shape,
    /// Of the result.
    node: usize,
    nodes: Vec<Node>,
    records: Vec<Record>,
    /// Nodes of the leaves that candle's graph leads to.
    linked: Vec<usize>,
    /// The leaves whose gradients are handed over here.
    handed: Leaves,
    leaf_gradients: LeafGradients,
}

impl CustomOp1 for SectionOp {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, _token: &CpuStorage, _layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        match result {
            Some(Handed::Cpu(elements)) => Ok((CpuStorage::F32(elements), self.shape.clone())),
            _ => candle_core::bail!("a section's result is handed out once"),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _token: &candle_core::CudaStorage,
        _layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        match result {
            Some(Handed::Cuda(storage)) => Ok((storage, self.shape.clone())),
            _ => candle_core::bail!("a section's result is handed out once"),
        }
    }

    fn bwd(&self, token: &Tensor, _result: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let mut gradients = Gradients::new(&self.nodes);
        gradients.add(self.node, Gradient::Plain(Elements::Shared(grad.contiguous()?)))?;
        for record in self.records.iter().rev() {
            if let Some(gradient) = gradients.take(record.output) {
                record.op.backward(gradient, &mut gradients)?;
            }
        }
        let mut found = self.leaf_gradients.lock().unwrap_or_else(PoisonError::into_inner);
        found.clear();
        for (leaf, node) in &self.handed {
            if let Some(gradient) = gradients.take(*node)
                && collect(leaf, gradient.plain().into_tensor(leaf.shape())?).is_some()
            {
                candle_core::bail!("the section was opened for tape::backward, not for Tensor::backward");
            }
        }
        for &leaf in &self.linked {
            if let Some(gradient) = gradients.take(leaf) {
                found.insert(leaf, gradient);
            }
        }
        Ok(Some(token.zeros_like()?))
    }
}

/// A leaf's place in candle's graph.
struct LeafOp {
    node: usize,
    gradients: LeafGradients,
}

impl CustomOp2 for LeafOp {
    fn name(&self) -> &'static str {
        "section leaf"
    }

    fn cpu_fwd(
        &self,
        _token: &CpuStorage,
        _token_layout: &Layout,
        _leaf: &CpuStorage,
        _leaf_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        token: &candle_core::CudaStorage,
        _token_layout: &Layout,
        _leaf: &candle_core::CudaStorage,
        _leaf_layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        use candle_core::backend::BackendDevice;
        Ok((token.device.zeros_impl(&Shape::from(()), DType::F32)?, Shape::from(())))
    }

    fn bwd(
        &self,
        token: &Tensor,
        leaf: &Tensor,
        _result: &Tensor,
        _grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let found = self
            .gradients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.node);
        let gradient = match found {
            Some(gradient) => collect(leaf, gradient.plain().into_tensor(leaf.shape())?),
            // candle's backward wants one for each tensor that is no variable.
            None if !leaf.is_variable() => Some(leaf.zeros_like()?),
            None => None,
        };
        let token = token.track_op().then(|| token.zeros_like()).transpose()?;
        Ok((token, gradient))
    }
}

/// A vector of `f32` as a contiguous tensor.
pub(crate) fn tensor(elements: Vec<f32>, dims: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_vec(elements, dims, &Device::Cpu)?)
}

/// Calls `read` with the elements of a recorded tensor.
pub(crate) fn elements<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> R) -> Result<R> {
    Ok(element::with_slice(OP, tensor, read)?)
}
