//! The fully connected layer within a section on a GPU: cuBLAS's products, with bias and relu in one pass after.

use candle_core::{DType, Tensor};

use super::batch_norm::{Sums, scale_shift};
use super::rows::{Function, cast};
use super::{Arg, Context, allocate, pointer};
use crate::autocast;
use crate::linear::check_shapes;
use crate::tape::{Backward, Gradient, Gradients, Tape, Value};
use crate::{Result, element};

/// An affine map of each row of a value on a GPU, as [`Tape::linear`].
pub(crate) fn linear(
    tape: &mut Tape,
    (x_node, x): (usize, &Tensor),
    weight: &Tensor,
    bias: Option<&Tensor>,
    relu: bool,
) -> Result<Value> {
    let context = Context::of(x.device())?;
    let dtype = autocast::current().dtype();
    let size = check_shapes(x, weight, bias)?;
    for parameter in [Some(weight), bias].into_iter().flatten() {
        element::require_dtype("linear parameter", parameter, DType::F32)?;
    }
    let input = cast(&context, x, dtype)?;
    let nodes = [Some(weight), bias].map(|tensor| tensor.map(|tensor| tape.leaf_node(tensor)));
    let needs_grad = tape.needs_grad(x_node) || nodes.into_iter().flatten().any(|node| tape.needs_grad(node));
    let weight = cast(&context, &weight.contiguous()?.detach(), dtype)?;
    let y = if size.rows == 0 {
        Tensor::zeros((0, size.outputs), dtype, x.device())?
    } else {
        input.matmul(&weight.t()?)?
    };
    if bias.is_some() || relu {
        let bias = bias.map(Tensor::contiguous).transpose()?;
        let shift = Arg::Pointer(bias.as_ref().map(pointer).transpose()?.unwrap_or(0));
        let function = if relu { Function::Relu } else { Function::Identity };
        // In place: the product is nobody else's.
        scale_shift(&context, &y, 0, [Arg::Pointer(0), shift], function, &y)?;
    }
    tape.keep(x_node);
    let output = relu.then(|| y.clone());
    let y = tape.plain(needs_grad, y);
    if let Some((node, _)) = y.as_recorded().filter(|_| relu) {
        tape.keep(node);
    }
    let [weight_node, bias_node] = nodes;
    let op = LinearOp {
        input,
        weight,
        output,
        x_node,
        x_dtype: x.dtype(),
        weight_node,
        bias_node,
    };
    tape.record(&y, op);
    Ok(y)
}

/// A fully connected layer that has run.
struct LinearOp {
    /// In the element type of the product, as the weight.
    input: Tensor,
    weight: Tensor,
    /// If a relu has cut it off.
    output: Option<Tensor>,
    x_node: usize,
    x_dtype: DType,
    weight_node: Option<usize>,
    bias_node: Option<usize>,
}

impl Backward for LinearOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let dy = gradient.device_tensor()?;
        let context = Context::of(dy.device())?;
        let dy = cast(&context, &dy, self.input.dtype())?;
        let for_bias = self.bias_node.filter(|node| gradients.needs(*node));
        let mut g = dy;
        if self.output.is_some() || for_bias.is_some() {
            // SAFETY: the kernel writes every element.
            let dbias = unsafe { allocate(&context, DType::F32, g.dim(1)?) }?;
            let masked = self
                .output
                .as_ref()
                .map(|_| {
                    // SAFETY: the kernel writes every element.
                    unsafe { allocate(&context, g.dtype(), g.shape()) }
                })
                .transpose()?;
            let sums = Sums {
                out: self.output.as_ref(),
                masked: masked.as_ref(),
                ..Sums::of_gradient(&dbias)
            };
            sums.run(&context, &g)?;
            g = masked.unwrap_or(g);
            if let Some(node) = for_bias {
                gradients.add(node, Gradient::of_device(dbias))?;
            }
        }
        let empty = g.elem_count() == 0;
        if let Some(node) = self.weight_node.filter(|node| gradients.needs(*node)) {
            let dweight = if empty {
                Tensor::zeros(self.weight.shape(), DType::F32, g.device())?
            } else {
                cast(&context, &g.t()?.matmul(&self.input)?, DType::F32)?
            };
            gradients.add(node, Gradient::of_device(dweight))?;
        }
        if gradients.needs(self.x_node) {
            let dx = if empty {
                self.input.clone()
            } else {
                g.matmul(&self.weight)?
            };
            gradients.add(self.x_node, Gradient::of_device(cast(&context, &dx, self.x_dtype)?))?;
        }
        Ok(())
    }
}
