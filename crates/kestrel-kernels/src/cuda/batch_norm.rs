//! Batch norm within a section on a GPU, fused with what follows it.

use candle_core::{DType, Tensor};

use super::context::Source;
use super::launch::instance;
use super::rows::{Function, convert};
use super::{Arg, Context, Grid, allocate, pointer};
use crate::batch_norm::check_parameters;
use crate::channels_last::{Activation, BatchNorm};
use crate::tape::{Backward, Gradient, Gradients, Tape, Value};
use crate::{Error, Result, element};

const OP: &str = "batch_norm";

/// The addresses of what a batch normalises by: mean, 1 / deviation, scale and shift, one row each of a `[4, C]` tensor.
#[derive(Clone, Copy)]
struct Rows {
    first: u64,
    channels: usize,
}

impl Rows {
    fn of(statistics: &Tensor) -> candle_core::Result<Self> {
        Ok(Self {
            first: pointer(statistics)?,
            channels: statistics.dim(1)?,
        })
    }

    fn row(self, row: usize) -> Arg<'static> {
        Arg::Pointer(self.first + (row * self.channels * DType::F32.size_in_bytes()) as u64)
    }
}

const MEAN: usize = 0;
const INV_STD: usize = 1;
const SCALE: usize = 2;
const SHIFT: usize = 3;

/// Batch norm of a value on a GPU, as [`Tape::batch_norm`]. `conv_bias`: what the convolution before left to this op.
pub(crate) fn normalize(
    tape: &mut Tape,
    (x_node, x): (usize, &Tensor),
    conv_bias: Option<&Tensor>,
    batch_norm: &BatchNorm<'_>,
    activation: Activation<'_>,
) -> Result<Value> {
    let context = Context::of(x.device())?;
    let (n, h, w, channels) = element::dims4("batch_norm input", x, "[N, H, W, C]")?;
    let rows = n * h * w;
    let parameters = [
        batch_norm.weight,
        batch_norm.bias,
        batch_norm.running_mean,
        batch_norm.running_var,
    ];
    check_parameters(channels, DType::F32, parameters)?;
    if batch_norm.training {
        if rows < 2 {
            return Err(Error::TooFewValuesPerChannel { got: x.dims().to_vec() });
        }
        for running in [batch_norm.running_mean, batch_norm.running_var] {
            element::require_contiguous(OP, running)?;
        }
    }
    let residual = match activation {
        Activation::AddRelu(residual) => Some(enter(tape, residual, x.dtype())?),
        _ => None,
    };
    let function = match activation {
        Activation::None => Function::Identity,
        Activation::Relu | Activation::AddRelu(_) => Function::Relu,
        Activation::Gelu => Function::Gelu,
    };
    let statistics = statistics(&context, x, rows, conv_bias, batch_norm)?;
    let by = Rows::of(&statistics)?;
    // SAFETY: the kernel writes every element.
    let y = unsafe { allocate(&context, x.dtype(), x.shape()) }?;
    let added = match residual.as_ref().and_then(Value::on_gpu) {
        Some((_, residual)) => pointer(residual)?,
        None => 0,
    };
    scale_shift(&context, x, added, [by.row(SCALE), by.row(SHIFT)], function, &y)?;
    let [weight, bias] = [batch_norm.weight, batch_norm.bias].map(|tensor| tape.leaf_node(tensor));
    let conv_bias = conv_bias.map(|bias| tape.leaf_node(bias));
    let residual_node = residual.as_ref().and_then(Value::as_recorded).map(|(node, _)| node);
    let needs_grad = [Some(x_node), Some(weight), Some(bias), conv_bias, residual_node]
        .into_iter()
        .flatten()
        .any(|node| tape.needs_grad(node));
    tape.keep(x_node);
    let out = residual_node.map(|_| y.clone());
    let y = tape.plain(needs_grad, y);
    if let Some((node, _)) = y.as_recorded().filter(|_| out.is_some()) {
        tape.keep(node);
    }
    let op = BatchNormOp {
        x: x.clone(),
        x_node,
        statistics,
        weight,
        bias,
        conv_bias,
        residual_node,
        out,
        function,
        training: batch_norm.training,
    };
    tape.record(&y, op);
    Ok(y)
}

/// A residual as a value of this tape, in the element type of what it is added to.
fn enter(tape: &mut Tape, residual: &Value, dtype: DType) -> Result<Value> {
    let residual = match residual.as_recorded() {
        Some(_) => residual.clone(),
        None => tape.leaf(&residual.tensor()?)?,
    };
    convert(tape, &residual, dtype)
}

/// `[4, C]`: what the values are normalised by; moves the running statistics when training.
fn statistics(
    context: &Context,
    x: &Tensor,
    rows: usize,
    conv_bias: Option<&Tensor>,
    batch_norm: &BatchNorm<'_>,
) -> Result<Tensor> {
    let channels = x.dim(3)?;
    let eps = Arg::F32(batch_norm.config.eps as f32);
    let [weight, bias] = [batch_norm.weight, batch_norm.bias].map(|tensor| tensor.contiguous());
    let (weight, bias) = (weight?, bias?);
    let conv_bias = conv_bias.map(Tensor::contiguous).transpose()?;
    let [weight, bias] = [Arg::Pointer(pointer(&weight)?), Arg::Pointer(pointer(&bias)?)];
    let conv_bias = Arg::Pointer(conv_bias.as_ref().map(pointer).transpose()?.unwrap_or(0));
    // SAFETY: the kernels write every element.
    let statistics = unsafe { allocate(context, DType::F32, (4, channels)) }?;
    let by = Rows::of(&statistics)?;
    let [mean, inv_std, scale, shift] = [MEAN, INV_STD, SCALE, SHIFT].map(|row| by.row(row));
    if !batch_norm.training {
        let [running_mean, running_var] =
            [batch_norm.running_mean, batch_norm.running_var].map(|tensor| tensor.contiguous());
        let (running_mean, running_var) = (running_mean?, running_var?);
        let args = [
            Arg::I32(channels as i32),
            weight,
            bias,
            conv_bias,
            Arg::Pointer(pointer(&running_mean)?),
            Arg::Pointer(pointer(&running_var)?),
            eps,
            mean,
            inv_std,
            scale,
            shift,
        ];
        // SAFETY: all are `[C]`.
        unsafe { context.launch(Source::BatchNorm, "batch_norm_fixed", Grid::one_each(channels), &args) }?;
        return Ok(statistics);
    }
    let (name, width) = instance("batch_norm_statistics", x.dtype(), channels)?;
    let grid = Grid::reduction(context, rows, channels, width);
    let partial = context.workspace(grid.blocks.1 * 3 * channels * DType::F32.size_in_bytes())?;
    let args = [
        Arg::Pointer(pointer(x)?),
        Arg::I64(rows as i64),
        Arg::I32(channels as i32),
        weight,
        bias,
        conv_bias,
        Arg::Pointer(pointer(batch_norm.running_mean)?),
        Arg::Pointer(pointer(batch_norm.running_var)?),
        Arg::F32(batch_norm.config.momentum as f32),
        eps,
        mean,
        inv_std,
        scale,
        shift,
        Arg::Pointer(partial.address),
        Arg::Pointer(context.counters(grid.blocks.0)?),
    ];
    // SAFETY: `x` is `[rows, C]`, what is by channel `[C]`; the workspace holds three floats a block and channel. The running
    // statistics are contiguous, and are moved in the stream's order.
    unsafe { context.launch(Source::BatchNorm, &name, grid, &args) }?;
    Ok(statistics)
}

/// `y = function(x · scale + shift + added)`, by channel; `y` may be `x`.
pub(super) fn scale_shift(
    context: &Context,
    x: &Tensor,
    added: u64,
    [scale, shift]: [Arg<'_>; 2],
    function: Function,
    y: &Tensor,
) -> candle_core::Result<()> {
    let channels = x.dim(candle_core::D::Minus1)?;
    let rows = x.elem_count() / channels.max(1);
    if rows == 0 {
        return Ok(());
    }
    let (name, width) = instance("scale_shift", x.dtype(), channels)?;
    let args = [
        Arg::Pointer(pointer(x)?),
        Arg::Pointer(added),
        Arg::I64(rows as i64),
        Arg::I32(channels as i32),
        scale,
        shift,
        function.arg(),
        Arg::Pointer(pointer(y)?),
    ];
    let grid = Grid::matrix(context, rows, channels, width);
    // SAFETY: `x`, `y` and what is added are `[rows, C]`, the others `[C]` or none.
    unsafe { context.launch(Source::BatchNorm, &name, grid, &args) }
}

/// What `batch_norm_backward_sums` takes besides the gradient.
pub(super) struct Sums<'a> {
    /// With its statistics, `[4, C]`; without them only the sum of the gradient is made.
    pub(super) normalized: Option<(&'a Tensor, &'a Tensor)>,
    /// By whose sign the gradient passes, if it does.
    pub(super) out: Option<&'a Tensor>,
    pub(super) function: Function,
    pub(super) training: bool,
    /// Where the gradient that has passed is written, if it is.
    pub(super) masked: Option<&'a Tensor>,
    /// Where the sums are written, `[C]` each.
    pub(super) dbias: &'a Tensor,
    pub(super) dweight: Option<&'a Tensor>,
    pub(super) dconv_bias: Option<&'a Tensor>,
    /// `[3, C]`.
    pub(super) coefficients: Option<&'a Tensor>,
}

impl<'a> Sums<'a> {
    /// The sum of a gradient by channel, and no more.
    pub(super) fn of_gradient(dbias: &'a Tensor) -> Self {
        Self {
            normalized: None,
            out: None,
            function: Function::Identity,
            training: false,
            masked: None,
            dbias,
            dweight: None,
            dconv_bias: None,
            coefficients: None,
        }
    }

    /// Passes `dy` back and adds it up by channel.
    pub(super) fn run(&self, context: &Context, dy: &Tensor) -> candle_core::Result<()> {
        let channels = dy.dim(candle_core::D::Minus1)?;
        let rows = dy.elem_count() / channels.max(1);
        let address = |tensor: Option<&Tensor>| -> candle_core::Result<Arg<'static>> {
            Ok(Arg::Pointer(tensor.map(pointer).transpose()?.unwrap_or(0)))
        };
        let (x, by) = match self.normalized {
            Some((x, statistics)) => {
                let by = Rows::of(statistics)?;
                (Some(x), [MEAN, INV_STD, SCALE, SHIFT].map(|row| by.row(row)))
            }
            None => (None, [Arg::Pointer(0); 4]),
        };
        let (name, width) = instance("batch_norm_backward_sums", dy.dtype(), channels)?;
        let grid = Grid::reduction(context, rows, channels, width);
        let partial = context.workspace(grid.blocks.1 * 2 * channels * DType::F32.size_in_bytes())?;
        let [mean, inv_std, scale, shift] = by;
        let args = [
            Arg::Pointer(pointer(dy)?),
            address(x)?,
            address(self.out)?,
            Arg::I64(rows as i64),
            Arg::I32(channels as i32),
            mean,
            inv_std,
            scale,
            shift,
            self.function.arg(),
            Arg::I32(i32::from(self.training)),
            address(self.masked)?,
            address(self.dweight)?,
            address(Some(self.dbias))?,
            address(self.dconv_bias)?,
            address(self.coefficients)?,
            Arg::Pointer(partial.address),
            Arg::Pointer(context.counters(grid.blocks.0)?),
        ];
        // SAFETY: whole tensors are `[rows, C]` and of one element type, the others of `f32` as their docs say; the workspace
        // holds two floats a block and channel.
        unsafe { context.launch(Source::BatchNorm, &name, grid, &args) }
    }
}

/// A batch norm that has run, and what followed.
struct BatchNormOp {
    x: Tensor,
    x_node: usize,
    /// `[4, C]`.
    statistics: Tensor,
    weight: usize,
    bias: usize,
    conv_bias: Option<usize>,
    residual_node: Option<usize>,
    /// The result, where a residual was added.
    out: Option<Tensor>,
    function: Function,
    training: bool,
}

impl Backward for BatchNormOp {
    /// ```text
    /// dbias = Σ g,  dweight = Σ g (x − mean) · inv_std
    /// dx = weight · inv_std · (g − [dbias + (x − mean) · inv_std · dweight] / M)   the bracket only in training
    /// ```
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let dy = gradient.device_tensor()?;
        let context = Context::of(dy.device())?;
        let channels = self.statistics.dim(1)?;
        let vector = |rows: usize| {
            // SAFETY: the kernel writes every element.
            unsafe { allocate(&context, DType::F32, (rows, channels)) }
        };
        let by_channel = || vector(1)?.reshape(channels);
        let (dweight, dbias, coefficients) = (by_channel()?, by_channel()?, vector(3)?);
        let dconv_bias = self.conv_bias.map(|_| by_channel()).transpose()?;
        let for_residual = self.residual_node.filter(|node| gradients.needs(*node));
        let masked = for_residual
            .map(|_| {
                // SAFETY: the kernel writes every element.
                unsafe { allocate(&context, dy.dtype(), dy.shape()) }
            })
            .transpose()?;
        let sums = Sums {
            normalized: Some((&self.x, &self.statistics)),
            out: self.out.as_ref(),
            function: self.function,
            training: self.training,
            masked: masked.as_ref(),
            dbias: &dbias,
            dweight: Some(&dweight),
            dconv_bias: dconv_bias.as_ref(),
            coefficients: Some(&coefficients),
        };
        sums.run(&context, &dy)?;
        gradients.add(self.weight, Gradient::of_device(dweight))?;
        gradients.add(self.bias, Gradient::of_device(dbias))?;
        if let (Some(node), Some(dconv_bias)) = (self.conv_bias, dconv_bias) {
            gradients.add(node, Gradient::of_device(dconv_bias))?;
        }
        if gradients.needs(self.x_node) {
            let dx = self.dx(&context, &dy, masked.as_ref(), &coefficients)?;
            gradients.add(self.x_node, Gradient::of_device(dx))?;
        }
        if let (Some(node), Some(masked)) = (for_residual, masked) {
            gradients.add(node, Gradient::of_device(masked))?;
        }
        Ok(())
    }
}

impl BatchNormOp {
    fn dx(
        &self,
        context: &Context,
        dy: &Tensor,
        masked: Option<&Tensor>,
        coefficients: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let channels = self.statistics.dim(1)?;
        let rows = dy.elem_count() / channels;
        let by = Rows::of(&self.statistics)?;
        // What has passed back through the relu already is not passed again.
        let (dy, out, function) = match masked {
            Some(masked) => (masked, None, Function::Identity),
            None => (dy, self.out.as_ref(), self.function),
        };
        // SAFETY: the kernel writes every element.
        let dx = unsafe { allocate(context, dy.dtype(), dy.shape()) }?;
        let (name, width) = instance("batch_norm_backward_apply", dy.dtype(), channels)?;
        let args = [
            Arg::Pointer(pointer(dy)?),
            Arg::Pointer(pointer(&self.x)?),
            Arg::Pointer(out.map(pointer).transpose()?.unwrap_or(0)),
            Arg::I64(rows as i64),
            Arg::I32(channels as i32),
            by.row(SCALE),
            by.row(SHIFT),
            function.arg(),
            Arg::Pointer(pointer(coefficients)?),
            Arg::Pointer(pointer(&dx)?),
        ];
        let grid = Grid::matrix(context, rows, channels, width);
        // SAFETY: whole tensors are `[rows, C]` and of one element type, the others `[C]` and `[3, C]`.
        unsafe { context.launch(Source::BatchNorm, &name, grid, &args) }?;
        Ok(dx)
    }
}
