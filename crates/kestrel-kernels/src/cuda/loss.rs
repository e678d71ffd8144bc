//! Cross-entropy on a GPU.

use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};

use super::context::Source;
use super::launch::LossArg;
use super::tensors::storage;
use super::{Arg, Context, Grid, allocate, pointer, storage_pointer};

/// Rows that a block takes, a warp each.
const ROWS: usize = 8;

/// The op that candle's autograd records; a label out of range makes the loss NaN, for the host does not see it.
pub(crate) struct CrossEntropy {
    /// Labels `[N]` of `u32`, or probabilities `[N, C]` of `f32`; contiguous.
    pub(crate) targets: Tensor,
    /// `[C]`.
    pub(crate) class_weights: Option<Tensor>,
    pub(crate) label_smoothing: f64,
    /// What the forward leaves for the backward.
    pub(crate) kept: Mutex<Option<Kept>>,
}

/// What the backward reads.
#[derive(Clone)]
pub(crate) struct Kept {
    /// `[N]`: log Σ exp of each row.
    row_log_sum: Tensor,
    /// By what the sum of the losses was divided.
    divisor: Tensor,
}

impl CrossEntropy {
    fn loss(&self, classes: usize) -> candle_core::Result<LossArg> {
        let targets = pointer(&self.targets)?;
        let labels = self.targets.dtype() == DType::U32;
        Ok(LossArg {
            labels: if labels { targets } else { 0 },
            probabilities: if labels { 0 } else { targets },
            weights: self.class_weights.as_ref().map(pointer).transpose()?.unwrap_or(0),
            classes: classes as i32,
            smoothing: self.label_smoothing as f32,
        })
    }
}

/// A warp for each row; blocks are in the second dimension.
fn grid(rows: usize) -> Grid {
    Grid {
        blocks: (1, rows.div_ceil(ROWS).max(1)),
        threads: (super::launch::THREADS, 1),
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, _logits: &CpuStorage, _layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        candle_core::bail!("the logits are on the CPU")
    }

    fn cuda_fwd(&self, logits: &CudaStorage, layout: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        let device = candle_core::Device::Cuda(logits.device.clone());
        let context = Context::of(&device)?;
        let (rows, classes) = layout.shape().dims2()?;
        let vector = |count: usize| {
            // SAFETY: the kernel writes every element.
            unsafe { allocate(&context, DType::F32, count) }
        };
        let (row_log_sum, losses, divisors, divisor) = (vector(rows)?, vector(rows)?, vector(rows)?, vector(1)?);
        // SAFETY: the kernel writes it.
        let mean = unsafe { storage(&context, DType::F32, 1) }?;
        let loss = self.loss(classes)?;
        let args = [
            Arg::Pointer(storage_pointer(logits, layout)?),
            Arg::I64(rows as i64),
            Arg::Loss(&loss),
            Arg::Pointer(pointer(&row_log_sum)?),
            Arg::Pointer(pointer(&losses)?),
            Arg::Pointer(pointer(&divisors)?),
            Arg::Pointer(storage_pointer(&mean, &Layout::contiguous(()))?),
            Arg::Pointer(pointer(&divisor)?),
            Arg::Pointer(context.counters(1)?),
        ];
        // SAFETY: the logits are `[rows, classes]`, contiguous; targets and weights have been checked against them.
        unsafe { context.launch(Source::CrossEntropy, "cross_entropy_forward", grid(rows), &args) }?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Kept { row_log_sum, divisor });
        Ok((mean, Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _loss: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let context = Context::of(logits.device())?;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Kept { row_log_sum, divisor }) = kept else {
            candle_core::bail!("the backward of a cross-entropy that has not run");
        };
        let (rows, classes) = logits.dims2()?;
        let (logits, grad) = (logits.contiguous()?, grad.contiguous()?);
        // SAFETY: the kernel writes every element.
        let dlogits = unsafe { allocate(&context, DType::F32, (rows, classes)) }?;
        let loss = self.loss(classes)?;
        let args = [
            Arg::Pointer(pointer(&logits)?),
            Arg::I64(rows as i64),
            Arg::Loss(&loss),
            Arg::Pointer(pointer(&row_log_sum)?),
            Arg::Pointer(pointer(&divisor)?),
            Arg::Pointer(pointer(&grad)?),
            Arg::Pointer(pointer(&dlogits)?),
        ];
        // SAFETY: as in the forward; the gradient is one float.
        unsafe { context.launch(Source::CrossEntropy, "cross_entropy_backward", grid(rows), &args) }?;
        Ok(Some(dlogits))
    }
}
