//! The fully connected layer within a section.

use candle_core::Tensor;

use super::kernel::{self, Size};
use super::{check, linear, linear_relu};
use crate::relu::gate;
use crate::tape::{Backward, Gradient, Gradients, Tape, Value, elements, tensor};
use crate::{Result, autocast};

impl Tape {
    /// An affine map of each row, `[N, I]` → `[N, O]`, cut off at 0 if `relu`; as [`linear`] and [`linear_relu`].
    ///
    /// # Errors
    /// Those of [`linear`], and [`Error::ForeignValue`](crate::Error::ForeignValue) for another tape's value.
    pub fn linear(&mut self, x: &Value, weight: &Tensor, bias: Option<&Tensor>, relu: bool) -> Result<Value> {
        self.check(x)?;
        #[cfg(feature = "cuda")]
        if let Some(on_gpu) = x.on_gpu() {
            return crate::cuda::linear(self, on_gpu, weight, bias, relu);
        }
        let Some((x_node, _)) = x.as_recorded() else {
            let op = if relu { linear_relu } else { linear };
            return Ok(self.in_graph(op(&x.whole()?, weight, bias)?));
        };
        if let Some(precision) = autocast::of_value(x) {
            return self.rounded(precision, (x, weight, bias), relu, |tape, x, weight, bias| {
                tape.linear(x, weight, bias, false)
            });
        }
        let x = x.whole()?;
        let size = check(&x, weight, bias)?;
        let nodes = [Some(weight), bias].map(|tensor| tensor.map(|tensor| self.leaf_node(tensor)));
        let needs_grad = self.needs_grad(x_node) || nodes.into_iter().flatten().any(|node| self.needs_grad(node));
        let weight = weight.contiguous()?.detach();
        let bias = bias.map(Tensor::to_vec1::<f32>).transpose()?;
        let mut y = vec![0.0; size.rows * size.outputs];
        elements(&x, |x| {
            elements(&weight, |weight| {
                kernel::forward(size, x, weight, bias.as_deref(), relu, &mut y)
            })
        })??;
        let y = self.plain(needs_grad, tensor(y, &[size.rows, size.outputs])?);
        self.keep(x_node);
        let output = relu.then(|| y.whole()).transpose()?;
        if let Some((node, _)) = y.as_recorded().filter(|_| relu) {
            self.keep(node);
        }
        let [weight_node, bias_node] = nodes;
        let op = LinearOp {
            size,
            x,
            weight,
            output,
            x_node,
            weight_node,
            bias_node,
        };
        self.record(&y, op);
        Ok(y)
    }
}

/// A fully connected layer that has run.
struct LinearOp {
    size: Size,
    x: Tensor,
    weight: Tensor,
    /// If a relu has cut it off.
    output: Option<Tensor>,
    x_node: usize,
    weight_node: Option<usize>,
    bias_node: Option<usize>,
}

impl Backward for LinearOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let size = self.size;
        let gradient = match &self.output {
            Some(y) => {
                let dy = gradient.plain();
                Gradient::owned(dy.with(|dy| elements(y, |y| gate(y, dy)))??)
            }
            None => gradient,
        };
        gradient.plain().with(|dy| {
            if let Some(node) = self.bias_node.filter(|node| gradients.needs(*node)) {
                gradients.add(node, Gradient::owned(kernel::backward_bias(size, dy)))?;
            }
            if let Some(node) = self.weight_node.filter(|node| gradients.needs(*node)) {
                let dweight = elements(&self.x, |x| kernel::backward_weight(size, dy, x))?;
                gradients.add(node, Gradient::owned(dweight))?;
            }
            if gradients.needs(self.x_node) {
                let dx = elements(&self.weight, |weight| kernel::backward_input(size, dy, weight))?;
                gradients.add(self.x_node, Gradient::owned(dx))?;
            }
            Ok(())
        })?
    }
}
