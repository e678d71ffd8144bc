//! Convolution within a section on a GPU.

use candle_core::Tensor;

use super::batch_norm::{Sums, scale_shift};
#[cfg(feature = "cudnn")]
use super::cudnn::Problem;
use super::rows::Function;
#[cfg(feature = "cudnn")]
use super::rows::{Transpose, cast, transpose};
use super::{Arg, Context, allocate, pointer};
use crate::autocast::{self, Precision};
use crate::conv2d::Conv2dConfig;
use crate::conv2d::geometry::Geometry;
use crate::tape::{Backward, Gradient, Gradients, Tape, Value};
use crate::{Result, element};

/// Channels that tensor cores take at once; those of images are filled up to as many.
#[cfg(feature = "cudnn")]
const LANES: usize = 8;

/// The convolution of a value on a GPU, as [`Tape::conv2d`].
pub(crate) fn conv2d(
    tape: &mut Tape,
    x: &Value,
    weight: &Tensor,
    bias: Option<&Tensor>,
    config: &Conv2dConfig,
) -> Result<Value> {
    let y = convolve(tape, x, weight, bias, config)?;
    match bias {
        Some(bias) => add_bias(tape, &y, bias),
        None => Ok(y),
    }
}

/// The same without adding the bias, which is only checked.
pub(crate) fn convolve(
    tape: &mut Tape,
    x: &Value,
    weight: &Tensor,
    bias: Option<&Tensor>,
    config: &Conv2dConfig,
) -> Result<Value> {
    let geometry = Geometry::new(&x.shape_tensor().permute((0, 3, 1, 2))?, weight, config)?;
    let like = weight.detach();
    element::require_float("channels_last conv2d weight", &like)?;
    if let Some(bias) = bias {
        element::require_same_dtype("channels_last conv2d bias", bias, &like)?;
        element::require_shape("channels_last conv2d bias", bias, &[geometry.out_channels])?;
    }
    run(tape, x, weight, &geometry, autocast::current())
}

/// Without cuDNN: candle's ops, in `f32`.
#[cfg(not(feature = "cudnn"))]
fn run(tape: &mut Tape, x: &Value, weight: &Tensor, geometry: &Geometry, precision: Precision) -> Result<Value> {
    let config = Conv2dConfig {
        stride: geometry.stride,
        padding: geometry.padding,
        dilation: geometry.dilation,
        groups: geometry.groups,
    };
    let y = tape.candle(&[x], |x| {
        let y = crate::conv2d(&x[0].permute((0, 3, 1, 2))?, weight, None, &config)?;
        Ok(y.permute((0, 2, 3, 1))?.contiguous()?)
    })?;
    super::convert(tape, &y, precision.dtype())
}

/// With cuDNN: in the element type of `precision`.
#[cfg(feature = "cudnn")]
fn run(tape: &mut Tape, x: &Value, weight: &Tensor, geometry: &Geometry, precision: Precision) -> Result<Value> {
    let Some((x_node, x)) = x.on_gpu() else {
        return Err(candle_core::Error::Msg("a convolution on a GPU of a value on the CPU".to_owned()).into());
    };
    let context = Context::of(x.device())?;
    let dtype = precision.dtype();
    let weight_node = tape.leaf_node(weight);
    let g = geometry;
    let group_channels = g.in_channels / g.groups;
    // Images have three channels; a gradient of theirs would have to lose the rest again.
    let fill_up = precision != Precision::F32 && g.groups == 1 && g.in_channels < LANES && !tape.needs_grad(x_node);
    let channels = if fill_up { LANES } else { group_channels };
    let problem = Problem {
        dtype,
        input: [g.batch, channels * g.groups, g.height, g.width],
        weight: [g.out_channels, channels, g.kernel_height, g.kernel_width],
        output: [g.batch, g.out_channels, g.out_height, g.out_width],
        padding: g.padding,
        stride: g.stride,
        dilation: g.dilation,
        groups: g.groups,
    };
    let taps = g.kernel_height * g.kernel_width;
    let input = if fill_up {
        let rows = Transpose {
            batch: g.batch * g.height * g.width,
            rows: g.in_channels,
            columns: 1,
            in_stride: 1,
            out_stride: channels,
        };
        transpose(&context, x, rows, dtype, &[g.batch, g.height, g.width, channels])?
    } else {
        cast(&context, x, dtype)?
    };
    let by_taps = Transpose {
        batch: g.out_channels,
        rows: group_channels,
        columns: taps,
        in_stride: taps,
        out_stride: channels,
    };
    let dims = [g.out_channels, g.kernel_height, g.kernel_width, channels];
    let taps_first = transpose(&context, &weight.contiguous()?, by_taps, dtype, &dims)?;
    // SAFETY: cuDNN writes every element.
    let y = unsafe { allocate(&context, dtype, (g.batch, g.out_height, g.out_width, g.out_channels)) }?;
    if g.batch > 0 {
        let [from, by, to] = [&input, &taps_first, &y].map(pointer);
        // SAFETY: the tensors are as the problem says.
        unsafe { context.cudnn.forward(&context, &problem, from?, by?, to?) }?;
    }
    let needs_grad = tape.needs_grad(x_node) || tape.needs_grad(weight_node);
    tape.keep(x_node);
    let y = tape.plain(needs_grad, y);
    let op = ConvolutionOp {
        problem,
        input,
        taps_first,
        group_channels,
        x_node,
        x_dtype: x.dtype(),
        weight_node,
    };
    tape.record(&y, op);
    Ok(y)
}

/// A convolution that has run.
#[cfg(feature = "cudnn")]
struct ConvolutionOp {
    problem: Problem,
    /// In the problem's element type, filled up.
    input: Tensor,
    /// `[K, R, S, C / groups]`, likewise.
    taps_first: Tensor,
    /// Of the weight as the caller has it.
    group_channels: usize,
    x_node: usize,
    x_dtype: candle_core::DType,
    weight_node: usize,
}

#[cfg(feature = "cudnn")]
impl Backward for ConvolutionOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let dy = gradient.device_tensor()?;
        let context = Context::of(dy.device())?;
        let dy = cast(&context, &dy, self.problem.dtype)?;
        let [out_channels, channels, height, width] = self.problem.weight;
        if gradients.needs(self.weight_node) {
            // SAFETY: cuDNN writes every element, and of nothing makes zeros.
            let dw = unsafe { allocate(&context, self.problem.dtype, self.taps_first.shape()) }?;
            let dims = [out_channels, self.group_channels, height, width];
            let dw = if self.problem.input[0] == 0 {
                Tensor::zeros(&dims[..], candle_core::DType::F32, dy.device())?
            } else {
                let [x, dy, to] = [&self.input, &dy, &dw].map(pointer);
                // SAFETY: the tensors are as the problem says.
                unsafe { context.cudnn.backward_filter(&context, &self.problem, x?, dy?, to?) }?;
                let by_channels = Transpose {
                    batch: out_channels,
                    rows: height * width,
                    columns: self.group_channels,
                    in_stride: channels,
                    out_stride: height * width,
                };
                transpose(&context, &dw, by_channels, candle_core::DType::F32, &dims)?
            };
            gradients.add(self.weight_node, Gradient::of_device(dw))?;
        }
        if gradients.needs(self.x_node) {
            // SAFETY: cuDNN writes every element.
            let dx = unsafe { allocate(&context, self.problem.dtype, self.input.shape()) }?;
            if self.problem.input[0] > 0 {
                let [w, dy, to] = [&self.taps_first, &dy, &dx].map(pointer);
                // SAFETY: the tensors are as the problem says; the input of a gradient's receiver was not filled up.
                unsafe { context.cudnn.backward_data(&context, &self.problem, w?, dy?, to?) }?;
            }
            let dx = cast(&context, &dx, self.x_dtype)?;
            gradients.add(self.x_node, Gradient::of_device(dx))?;
        }
        Ok(())
    }
}

/// `y + bias`, by channel; `y` is nobody else's.
fn add_bias(tape: &mut Tape, y: &Value, bias: &Tensor) -> Result<Value> {
    let Some((node, y)) = y.on_gpu() else {
        return Ok(y.clone());
    };
    let context = Context::of(y.device())?;
    let bias_node = tape.leaf_node(bias);
    let needs_grad = tape.needs_grad(node) || tape.needs_grad(bias_node);
    let bias = bias.contiguous()?;
    let shift = Arg::Pointer(pointer(&bias)?);
    // SAFETY: the kernel writes every element.
    let sum = unsafe { allocate(&context, y.dtype(), y.shape()) }?;
    scale_shift(&context, y, 0, [Arg::Pointer(0), shift], Function::Identity, &sum)?;
    let sum = tape.plain(needs_grad, sum);
    tape.record(&sum, BiasOp { node, bias_node });
    Ok(sum)
}

/// An addition of a bias that has run.
struct BiasOp {
    node: usize,
    bias_node: usize,
}

impl Backward for BiasOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let dy = gradient.device_tensor()?;
        if gradients.needs(self.bias_node) {
            let dbias = bias_gradient(&dy)?;
            gradients.add(self.bias_node, Gradient::of_device(dbias))?;
        }
        gradients.add(self.node, Gradient::of_device(dy))
    }
}

/// The sum of the rows of a gradient.
fn bias_gradient(dy: &Tensor) -> Result<Tensor> {
    let context = Context::of(dy.device())?;
    let channels = dy.dim(candle_core::D::Minus1)?;
    // SAFETY: the kernel writes every element.
    let dbias = unsafe { allocate(&context, candle_core::DType::F32, channels) }?;
    Sums::of_gradient(&dbias).run(&context, dy)?;
    Ok(dbias)
}
