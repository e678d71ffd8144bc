//! Pooling within a section on a GPU.

use candle_core::{DType, Tensor};

use super::context::Source;
use super::launch::instance;
use super::{Arg, Context, Grid, allocate, pointer};
use crate::Result;
use crate::max_pool2d::geometry::Geometry;
use crate::tape::{Backward, Gradient, Gradients, Tape, Value};

/// The sizes of a pooling as the kernels take them.
fn sizes(geometry: &Geometry) -> [Arg<'static>; 9] {
    let Geometry {
        batch,
        channels,
        height,
        width,
        out_height,
        out_width,
        kernel,
        stride,
        padding,
    } = *geometry;
    let rest = [height, width, channels, out_height, out_width, kernel, stride, padding];
    let mut args = [Arg::I64(batch as i64); 9];
    for (arg, value) in args[1..].iter_mut().zip(rest) {
        *arg = Arg::I32(value as i32);
    }
    args
}

/// The maximum of each window of a value on a GPU, as [`Tape::max_pool2d`].
pub(crate) fn max_pool2d(tape: &mut Tape, (node, x): (usize, &Tensor), geometry: Geometry) -> Result<Value> {
    let context = Context::of(x.device())?;
    let shape = [
        geometry.batch,
        geometry.out_height,
        geometry.out_width,
        geometry.channels,
    ];
    let needs_grad = tape.needs_grad(node);
    // SAFETY: the kernel writes every element.
    let y = unsafe { allocate(&context, x.dtype(), &shape[..]) }?;
    let taps = needs_grad
        .then(|| {
            // SAFETY: the kernel writes every element.
            unsafe { allocate(&context, DType::U8, &shape[..]) }
        })
        .transpose()?;
    let (name, width) = instance("max_pool_forward", x.dtype(), geometry.channels)?;
    let mut args = vec![Arg::Pointer(pointer(x)?)];
    args.extend(sizes(&geometry));
    args.push(Arg::Pointer(pointer(&y)?));
    args.push(Arg::Pointer(taps.as_ref().map(pointer).transpose()?.unwrap_or(0)));
    let grid = Grid::strided(&context, y.elem_count() / width);
    // SAFETY: the tensors are of the sizes given.
    unsafe { context.launch(Source::Pool, &name, grid, &args) }?;
    tape.keep(node);
    let y = tape.plain(needs_grad, y);
    if let Some(taps) = taps {
        tape.record(&y, MaxPool2dOp { node, geometry, taps });
    }
    Ok(y)
}

/// A pooling that has run.
struct MaxPool2dOp {
    node: usize,
    geometry: Geometry,
    /// For each output the tap that the maximum came from.
    taps: Tensor,
}

impl Backward for MaxPool2dOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let dy = gradient.device_tensor()?;
        let context = Context::of(dy.device())?;
        let g = &self.geometry;
        // SAFETY: the kernel writes every element.
        let dx = unsafe { allocate(&context, dy.dtype(), (g.batch, g.height, g.width, g.channels)) }?;
        let (name, width) = instance("max_pool_backward", dy.dtype(), g.channels)?;
        let mut args = vec![Arg::Pointer(pointer(&dy)?), Arg::Pointer(pointer(&self.taps)?)];
        args.extend(sizes(g));
        args.push(Arg::Pointer(pointer(&dx)?));
        let grid = Grid::strided(&context, dx.elem_count() / width);
        // SAFETY: the tensors are of the sizes given.
        unsafe { context.launch(Source::Pool, &name, grid, &args) }?;
        gradients.add(self.node, Gradient::of_device(dx))
    }
}

/// The mean over the pixels of each image of a value on a GPU, `[N, H, W, C]` → `[N, 1, 1, C]`.
pub(crate) fn mean_of_pixels(tape: &mut Tape, (node, x): (usize, &Tensor)) -> Result<Value> {
    let context = Context::of(x.device())?;
    let (n, h, w, c) = x.dims4()?;
    // SAFETY: the kernel writes every element.
    let y = unsafe { allocate(&context, x.dtype(), (n, 1, 1, c)) }?;
    let (name, width) = instance("mean_forward", x.dtype(), c)?;
    let args = [
        Arg::Pointer(pointer(x)?),
        Arg::I64(n as i64),
        Arg::I32((h * w) as i32),
        Arg::I32(c as i32),
        Arg::Pointer(pointer(&y)?),
    ];
    // SAFETY: the tensors are of the sizes given.
    unsafe { context.launch(Source::Pool, &name, Grid::one_each(y.elem_count() / width), &args) }?;
    let y = tape.plain(tape.needs_grad(node), y);
    tape.record(
        &y,
        MeanOp {
            node,
            dims: [n, h, w, c],
        },
    );
    Ok(y)
}

/// A mean over pixels that has run.
struct MeanOp {
    node: usize,
    dims: [usize; 4],
}

impl Backward for MeanOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let dy = gradient.device_tensor()?;
        let context = Context::of(dy.device())?;
        let [n, h, w, c] = self.dims;
        // SAFETY: the kernel writes every element.
        let dx = unsafe { allocate(&context, dy.dtype(), &self.dims[..]) }?;
        let (name, width) = instance("mean_backward", dy.dtype(), c)?;
        let args = [
            Arg::Pointer(pointer(&dy)?),
            Arg::I64(n as i64),
            Arg::I32((h * w) as i32),
            Arg::I32(c as i32),
            Arg::Pointer(pointer(&dx)?),
        ];
        // SAFETY: the tensors are of the sizes given.
        unsafe {
            context.launch(
                Source::Pool,
                &name,
                Grid::strided(&context, dx.elem_count() / width),
                &args,
            )
        }?;
        gradients.add(self.node, Gradient::of_device(dx))
    }
}
