//! Dropout within a section on a GPU, with the CPU's masks.

use candle_core::Tensor;

use super::context::Source;
use super::graph::recorded_step;
use super::launch::{Key, type_name};
use super::{Arg, Context, Grid, allocate, pointer};
use crate::Result;
use crate::dropout::DropoutKey;
use crate::random::Purpose;
use crate::tape::{Backward, Gradient, Gradients, Tape, Value};

/// Elements that a thread makes the numbers for.
const AT_ONCE: usize = 16;

/// Dropout of a value on a GPU, as [`Tape::dropout`]; `p` is in `(0, 1]`.
pub(crate) fn dropout(tape: &mut Tape, (node, x): (usize, &Tensor), p: f64, key: DropoutKey) -> Result<Value> {
    let op = DropoutOp { node, p, key };
    let y = op.apply(x)?;
    let y = tape.plain(tape.needs_grad(node), y);
    tape.record(&y, op);
    Ok(y)
}

/// A dropout that has run.
struct DropoutOp {
    node: usize,
    p: f64,
    key: DropoutKey,
}

impl DropoutOp {
    fn apply(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let context = Context::of(x.device())?;
        // SAFETY: the kernel writes every element.
        let y = unsafe { allocate(&context, x.dtype(), x.shape()) }?;
        let mut words = [0; 8];
        let halves = [self.key.seed, Purpose::Dropout as u64, self.key.step, self.key.layer];
        for (words, word) in words.chunks_exact_mut(2).zip(halves) {
            words[0] = word as u32;
            words[1] = (word >> 32) as u32;
        }
        let key = Key(words);
        let scale = if self.p < 1.0 { 1.0 / (1.0 - self.p) } else { 0.0 };
        let args = [
            Arg::Pointer(pointer(x)?),
            Arg::I64(x.elem_count() as i64),
            Arg::Key(&key),
            Arg::Pointer(recorded_step()),
            Arg::U64((self.p * (1u64 << 32) as f64) as u64),
            Arg::F32(scale as f32),
            Arg::Pointer(pointer(&y)?),
        ];
        let name = format!("dropout_{}", type_name(x.dtype())?);
        let grid = Grid::strided(&context, x.elem_count().div_ceil(AT_ONCE));
        // SAFETY: both have as many elements.
        unsafe { context.launch(Source::Dropout, &name, grid, &args) }?;
        Ok(y)
    }
}

impl Backward for DropoutOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let dx = self.apply(&gradient.device_tensor()?)?;
        gradients.add(self.node, Gradient::of_device(dx))
    }
}
