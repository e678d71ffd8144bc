//! Optimiser steps over many parameters in one launch.

use candle_core::{DType, Tensor};

use super::context::Source;
use super::launch::{TENSORS, Tensors};
use super::{Arg, Context, Grid, allocate, pointer};

/// Blocks that share a tensor; those that find nothing to do cost little.
const BLOCKS: usize = 192;

/// A parameter, its gradient, and up to two tensors of state; all contiguous `f32` of one shape.
pub(crate) struct Moved<'a> {
    pub(crate) param: &'a Tensor,
    pub(crate) grad: &'a Tensor,
    pub(crate) state: [Option<&'a Tensor>; 2],
}

/// Calls `launch` for each part of the tensors that a launch takes.
fn in_parts<'a>(
    moved: &[Moved<'a>],
    mut launch: impl FnMut(Grid, &Tensors) -> candle_core::Result<()>,
) -> candle_core::Result<()> {
    for part in moved.chunks(TENSORS) {
        let mut tensors = Tensors {
            param: [0; TENSORS],
            grad: [0; TENSORS],
            first: [0; TENSORS],
            second: [0; TENSORS],
            count: [0; TENSORS],
        };
        for (i, moved) in part.iter().enumerate() {
            tensors.param[i] = pointer(moved.param)?;
            tensors.grad[i] = pointer(moved.grad)?;
            let [first, second] = moved.state.map(|state| state.map(pointer).transpose());
            tensors.first[i] = first?.unwrap_or(0);
            tensors.second[i] = second?.unwrap_or(0);
            tensors.count[i] = moved.param.elem_count() as i64;
        }
        let grid = Grid {
            blocks: (BLOCKS, part.len()),
            threads: (super::launch::THREADS, 1),
        };
        launch(grid, &tensors)?;
    }
    Ok(())
}

/// The address of a gate, a float: where it is 0, nothing moves.
fn gate_arg(gate: Option<&Tensor>) -> candle_core::Result<Arg<'static>> {
    Ok(Arg::Pointer(gate.map(pointer).transpose()?.unwrap_or(0)))
}

/// Adam's constants, in the order of the kernel's arguments.
pub(crate) struct AdamConstants {
    pub(crate) weight_decay: f32,
    pub(crate) share1: f32,
    pub(crate) beta2: f32,
    pub(crate) share2: f32,
    pub(crate) step_size: f32,
    pub(crate) sqrt_correction2: f32,
    pub(crate) eps: f32,
    pub(crate) keep: f32,
}

/// One step of Adam on each parameter.
pub(crate) fn adam(moved: &[Moved<'_>], constants: &AdamConstants, gate: Option<&Tensor>) -> candle_core::Result<()> {
    let Some(first) = moved.first() else {
        return Ok(());
    };
    let context = Context::of(first.param.device())?;
    let gate = gate_arg(gate)?;
    in_parts(moved, |grid, tensors| {
        let args = [
            Arg::Tensors(tensors),
            Arg::F32(constants.weight_decay),
            Arg::F32(constants.share1),
            Arg::F32(constants.beta2),
            Arg::F32(constants.share2),
            Arg::F32(constants.step_size),
            Arg::F32(constants.sqrt_correction2),
            Arg::F32(constants.eps),
            Arg::F32(constants.keep),
            gate,
        ];
        // SAFETY: the tensors have been checked: contiguous, of one element type and shape, with both states.
        unsafe { context.launch(Source::Update, "adam", grid, &args) }
    })
}

/// SGD's constants, in the order of the kernel's arguments.
pub(crate) struct SgdConstants {
    pub(crate) lr: f32,
    pub(crate) momentum: f32,
    /// Of the gradient that enters the buffer.
    pub(crate) share: f32,
    pub(crate) weight_decay: f32,
    pub(crate) nesterov: bool,
    pub(crate) has_buffer: bool,
    /// Whether the buffers hold a step already.
    pub(crate) started: bool,
}

/// One step of SGD on each parameter.
pub(crate) fn sgd(moved: &[Moved<'_>], constants: &SgdConstants, gate: Option<&Tensor>) -> candle_core::Result<()> {
    let Some(first) = moved.first() else {
        return Ok(());
    };
    let context = Context::of(first.param.device())?;
    let gate = gate_arg(gate)?;
    let flag = |value: bool| Arg::I32(i32::from(value));
    in_parts(moved, |grid, tensors| {
        let args = [
            Arg::Tensors(tensors),
            Arg::F32(constants.lr),
            Arg::F32(constants.momentum),
            Arg::F32(constants.share),
            Arg::F32(constants.weight_decay),
            flag(constants.nesterov),
            flag(constants.has_buffer),
            flag(constants.started),
            gate,
        ];
        // SAFETY: the tensors have been checked: contiguous, of one element type and shape, with a buffer if there is momentum.
        unsafe { context.launch(Source::Update, "sgd", grid, &args) }
    })
}

/// Copies the first tensor of each pair into the second; contiguous `f32` of one size.
pub(super) fn copy(from_to: &[(&Tensor, &Tensor)]) -> candle_core::Result<()> {
    let Some((first, _)) = from_to.first() else {
        return Ok(());
    };
    let context = Context::of(first.device())?;
    let moved: Vec<Moved<'_>> = from_to
        .iter()
        .map(|(from, to)| Moved {
            param: to,
            grad: from,
            state: [None, None],
        })
        .collect();
    in_parts(&moved, |grid, tensors| {
        // SAFETY: the tensors have been checked: contiguous `f32`, the pairs of one size.
        unsafe { context.launch(Source::Update, "copy", grid, &[Arg::Tensors(tensors)]) }
    })
}

/// The sum of the squares of each of some `f32` tensors, in `f64`, left on the device: `[P]`.
pub(crate) fn squared_norms(tensors: &[Tensor]) -> candle_core::Result<Tensor> {
    let Some(first) = tensors.first() else {
        candle_core::bail!("squared norms of no tensors");
    };
    let context = Context::of(first.device())?;
    let contiguous: candle_core::Result<Vec<Tensor>> = tensors.iter().map(Tensor::contiguous).collect();
    let contiguous = contiguous?;
    let moved: Vec<Moved<'_>> = contiguous
        .iter()
        .map(|tensor| Moved {
            param: tensor,
            grad: tensor,
            state: [None, None],
        })
        .collect();
    // SAFETY: the launches below write every element.
    let result = unsafe { allocate(&context, DType::F64, moved.len()) }?;
    let mut to = pointer(&result)?;
    in_parts(&moved, |grid, tensors| {
        let (blocks, count) = grid.blocks;
        let partial = context.workspace(blocks * count * DType::F64.size_in_bytes())?;
        let args = [
            Arg::Tensors(tensors),
            Arg::Pointer(partial.address),
            Arg::Pointer(context.counters(count)?),
            Arg::Pointer(to),
        ];
        to += (count * DType::F64.size_in_bytes()) as u64;
        // SAFETY: the tensors are contiguous `f32`, by the caller; the workspace holds a double a block, and the result one a
        // tensor.
        unsafe { context.launch(Source::Update, "squared_norms", grid, &args) }
    })?;
    Ok(result)
}
