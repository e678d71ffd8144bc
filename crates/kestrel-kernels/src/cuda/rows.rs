//! Changes of layout and type, sums, and pointwise functions.

use candle_core::{DType, Tensor};

use super::context::Source;
use super::launch::type_name;
use super::{Arg, Context, Grid, allocate, pointer};
use crate::Result;
use crate::tape::{Backward, Gradient, Gradients, Tape, Value};

/// What `transpose` of `rows.cu` does: `out[b, j, i] = in[b, i, j]` for `i < rows`, `j < columns`, where the rows of the result
/// are `out_stride` long and filled up with zeros.
#[derive(Clone, Copy)]
pub(super) struct Transpose {
    pub(super) batch: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) in_stride: usize,
    pub(super) out_stride: usize,
}

impl Transpose {
    /// Of each of `batch` matrices `[rows, columns]`.
    pub(super) fn plain(batch: usize, rows: usize, columns: usize) -> Self {
        Self {
            batch,
            rows,
            columns,
            in_stride: columns,
            out_stride: rows,
        }
    }
}

/// A new tensor of `dims` and `dtype`, transposed from contiguous `x`.
pub(super) fn transpose(
    context: &Context,
    x: &Tensor,
    transpose: Transpose,
    dtype: DType,
    dims: &[usize],
) -> candle_core::Result<Tensor> {
    let Transpose {
        batch,
        rows,
        columns,
        in_stride,
        out_stride,
    } = transpose;
    // SAFETY: the kernel writes every element.
    let out = unsafe { allocate(context, dtype, dims) }?;
    let name = format!("transpose_{}_{}", type_name(x.dtype())?, type_name(dtype)?);
    let args = [
        Arg::Pointer(pointer(x)?),
        Arg::I64(batch as i64),
        Arg::I32(rows as i32),
        Arg::I32(columns as i32),
        Arg::I32(in_stride as i32),
        Arg::I32(out_stride as i32),
        Arg::Pointer(pointer(&out)?),
    ];
    let grid = Grid::strided(context, out.elem_count());
    // SAFETY: `in` has `batch · rows · in_stride` elements and `out` `batch · columns · out_stride`, by the callers.
    unsafe { context.launch(Source::Rows, &name, grid, &args) }?;
    Ok(out)
}

/// `x` in another element type; itself if it has it.
pub(super) fn cast(context: &Context, x: &Tensor, dtype: DType) -> candle_core::Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    // SAFETY: the kernel writes every element.
    let out = unsafe { allocate(context, dtype, x.shape()) }?;
    let name = format!("convert_{}_{}", type_name(x.dtype())?, type_name(dtype)?);
    let args = [
        Arg::Pointer(pointer(x)?),
        Arg::I64(x.elem_count() as i64),
        Arg::Pointer(pointer(&out)?),
    ];
    let grid = Grid::strided(context, x.elem_count());
    // SAFETY: both have as many elements.
    unsafe { context.launch(Source::Rows, &name, grid, &args) }?;
    Ok(out)
}

/// Images `[N, C, H, W]` without a graph as `[N, H, W, C]`.
pub(crate) fn to_channels_last(x: &Tensor) -> candle_core::Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let context = Context::of(x.device())?;
    transpose(
        &context,
        &x.contiguous()?,
        Transpose::plain(n, c, h * w),
        x.dtype(),
        &[n, h, w, c],
    )
}

/// The sum of two gradients.
pub(crate) fn add(sum: &Tensor, terms: &Tensor) -> candle_core::Result<Tensor> {
    let context = Context::of(sum.device())?;
    let (sum, terms) = (sum.copy()?, cast(&context, terms, sum.dtype())?);
    let name = format!("add_{}", type_name(sum.dtype())?);
    let args = [
        Arg::Pointer(pointer(&terms)?),
        Arg::I64(sum.elem_count() as i64),
        Arg::Pointer(pointer(&sum)?),
    ];
    let grid = Grid::strided(&context, sum.elem_count().div_ceil(4));
    // SAFETY: both have as many elements, and the sum is nobody else's.
    unsafe { context.launch(Source::Rows, &name, grid, &args) }?;
    Ok(sum)
}

/// The value in another element type, recorded.
pub(crate) fn convert(tape: &mut Tape, value: &Value, dtype: DType) -> Result<Value> {
    let Some((node, x)) = value.on_gpu() else {
        return Ok(value.clone());
    };
    if x.dtype() == dtype {
        return Ok(value.clone());
    }
    let context = Context::of(x.device())?;
    let y = cast(&context, x, dtype)?;
    let from = x.dtype();
    let y = tape.plain(tape.needs_grad(node), y);
    tape.record(&y, ConvertOp { node, from });
    Ok(y)
}

/// A change of type that has run.
struct ConvertOp {
    node: usize,
    from: DType,
}

impl Backward for ConvertOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let dy = gradient.device_tensor()?;
        let context = Context::of(dy.device())?;
        gradients.add(self.node, Gradient::of_device(cast(&context, &dy, self.from)?))
    }
}

/// `[N, H, W, C]` → `[N, C·H·W]`, as [`Tape::flatten`].
pub(crate) fn flatten(tape: &mut Tape, (node, x): (usize, &Tensor)) -> Result<Value> {
    let (n, h, w, c) = x.dims4()?;
    let context = Context::of(x.device())?;
    let dims = [n, c * h * w];
    let y = if h * w == 1 {
        x.reshape(&dims[..])?
    } else {
        transpose(&context, x, Transpose::plain(n, h * w, c), x.dtype(), &dims)?
    };
    tape.keep(node);
    let y = tape.plain(tape.needs_grad(node), y);
    if let Some((node, _)) = y.as_recorded() {
        // A reshaped tensor shares its memory.
        tape.keep(node);
    }
    tape.record(
        &y,
        FlattenOp {
            node,
            dims: [n, h, w, c],
        },
    );
    Ok(y)
}

/// A flattening that has run.
struct FlattenOp {
    node: usize,
    dims: [usize; 4],
}

impl Backward for FlattenOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let dy = gradient.device_tensor()?;
        let [n, h, w, c] = self.dims;
        let dx = if h * w == 1 {
            dy.reshape(&self.dims[..])?
        } else {
            let context = Context::of(dy.device())?;
            transpose(&context, &dy, Transpose::plain(n, c, h * w), dy.dtype(), &self.dims)?
        };
        gradients.add(self.node, Gradient::of_device(dx))
    }
}

/// What is applied to each element; numbered as `Activation` of `common.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Identity = 0,
    Relu = 1,
    Gelu = 2,
}

impl Function {
    pub(super) fn arg(self) -> Arg<'static> {
        Arg::I32(self as i32)
    }
}

/// A function of each element, recorded.
pub(crate) fn pointwise(tape: &mut Tape, (node, x): (usize, &Tensor), function: Function) -> Result<Value> {
    let context = Context::of(x.device())?;
    // SAFETY: the kernel writes every element.
    let y = unsafe { allocate(&context, x.dtype(), x.shape()) }?;
    let args = [
        Arg::Pointer(pointer(x)?),
        Arg::I64(x.elem_count() as i64),
        function.arg(),
        Arg::Pointer(pointer(&y)?),
    ];
    let name = format!("activate_{}", type_name(x.dtype())?);
    // SAFETY: both have as many elements.
    unsafe { context.launch(Source::Rows, &name, Grid::strided(&context, x.elem_count()), &args) }?;
    tape.keep(node);
    let y = tape.plain(tape.needs_grad(node), y);
    let x = x.clone();
    tape.record(&y, PointwiseOp { node, x, function });
    Ok(y)
}

/// A function of each element that has run.
struct PointwiseOp {
    node: usize,
    x: Tensor,
    function: Function,
}

impl Backward for PointwiseOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let dy = gradient.device_tensor()?;
        let context = Context::of(dy.device())?;
        // SAFETY: the kernel writes every element.
        let dx = unsafe { allocate(&context, dy.dtype(), dy.shape()) }?;
        let args = [
            Arg::Pointer(pointer(&dy)?),
            Arg::Pointer(pointer(&self.x)?),
            Arg::I64(dy.elem_count() as i64),
            self.function.arg(),
            Arg::Pointer(pointer(&dx)?),
        ];
        let name = format!("activate_backward_{}", type_name(dy.dtype())?);
        // SAFETY: all have as many elements.
        unsafe { context.launch(Source::Rows, &name, Grid::strided(&context, dy.elem_count()), &args) }?;
        gradients.add(self.node, Gradient::of_device(dx))
    }
}
