//! The sum of two values.

use rayon::prelude::*;

use super::{Backward, Gradient, Gradients, Tape, Value, elements, tensor};
use crate::{Result, element};

const OP: &str = "add";

/// Elements of a piece of work.
const BLOCK: usize = 1 << 15;

impl Tape {
    /// `a + b`, element by element: where a residual branch ends without a batch norm.
    ///
    /// After a batch norm [`Activation::AddRelu`](crate::channels_last::Activation::AddRelu) saves passes over memory.
    ///
    /// # Shapes
    /// Those of both are the same, and the result's.
    ///
    /// # Errors
    /// [`ShapeMismatch`](crate::Error::ShapeMismatch), [`DTypeMismatch`](crate::Error::DTypeMismatch), and
    /// [`ForeignValue`](crate::Error::ForeignValue) for another tape's value.
    pub fn add(&mut self, a: &Value, b: &Value) -> Result<Value> {
        self.check(a)?;
        self.check(b)?;
        element::require_shape(OP, b.shape_tensor(), a.dims())?;
        #[cfg(feature = "cuda")]
        if a.on_gpu().or(b.on_gpu()).is_some() {
            return self.candle(&[a, b], |terms| Ok((&terms[0] + &terms[1])?));
        }
        element::require_float(OP, a.shape_tensor())?;
        element::require_same_dtype(OP, b.shape_tensor(), a.shape_tensor())?;
        if a.as_recorded().or(b.as_recorded()).is_none() {
            return Ok(self.in_graph((a.whole()? + b.whole()?)?));
        }
        let (a_node, a) = self.enter(a)?;
        let (b_node, b) = self.enter(b)?;
        let y = elements(&a, |a| elements(&b, |b| sum(a, b)))??;
        let needs_grad = self.needs_grad(a_node) || self.needs_grad(b_node);
        let y = self.plain(needs_grad, tensor(y, a.dims())?);
        self.record(&y, AddOp { a_node, b_node });
        Ok(y)
    }

    /// The node and elements of a value; one of candle's graph enters the tape here.
    fn enter(&mut self, value: &Value) -> Result<(usize, candle_core::Tensor)> {
        match value.as_recorded() {
            Some((node, _)) => Ok((node, value.whole()?)),
            None => {
                let tensor = value.whole()?;
                Ok((self.leaf_node(&tensor), tensor.contiguous()?.detach()))
            }
        }
    }
}

fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; a.len()];
    out.par_chunks_mut(BLOCK)
        .zip(a.par_chunks(BLOCK).zip(b.par_chunks(BLOCK)))
        .for_each(|(out, (a, b))| {
            for (out, (a, b)) in out.iter_mut().zip(a.iter().zip(b)) {
                *out = a + b;
            }
        });
    out
}

/// A sum that has run in a section.
struct AddOp {
    a_node: usize,
    b_node: usize,
}

impl Backward for AddOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let gradient = gradient.plain();
        if gradients.needs(self.a_node) && gradients.needs(self.b_node) {
            gradients.add(self.a_node, Gradient::Plain(gradient.clone()))?;
            return gradients.add(self.b_node, Gradient::Plain(gradient));
        }
        // One of them takes it, and the other does not.
        let node = if gradients.needs(self.a_node) {
            self.a_node
        } else {
            self.b_node
        };
        gradients.add(node, Gradient::Plain(gradient))
    }
}
