//! Candle's own ops in the middle of a section.

use candle_core::{Tensor, Var};

use super::backward::take_collected;
use super::{Backward, Elements, Gradient, Gradients, Tape, Value};
use crate::Result;

impl Tape {
    /// Any function of candle's ops as one op of the section.
    ///
    /// The variables that `f` uses besides `inputs` are found in candle's graph of its result, and get their gradients.
    /// Each recorded input that needs a gradient is copied once.
    ///
    /// # Errors
    /// Those of `f`, and [`Error::ForeignValue`](crate::Error::ForeignValue) for another tape's value.
    pub fn candle(&mut self, inputs: &[&Value], f: impl FnOnce(&[Tensor]) -> Result<Tensor>) -> Result<Value> {
        #[cfg(feature = "cuda")]
        let converted = inputs
            .iter()
            .map(|input| crate::cuda::convert(self, input, candle_core::DType::F32))
            .collect::<Result<Vec<_>>>()?;
        #[cfg(feature = "cuda")]
        let inputs = &converted.iter().collect::<Vec<_>>()[..];
        let mut arguments = Vec::with_capacity(inputs.len());
        let (mut own, mut variables) = (Vec::new(), Vec::new());
        let mut is_recorded = inputs.is_empty();
        for input in inputs {
            self.check(input)?;
            let tensor = input.whole()?;
            if let Some((node, _)) = input.as_recorded() {
                is_recorded = true;
                if self.needs_grad(node) {
                    let variable = Var::from_tensor(&tensor)?;
                    arguments.push(variable.as_tensor().clone());
                    own.push((variable, node));
                    continue;
                }
            }
            arguments.push(tensor);
        }
        let result = f(&arguments)?;
        if !is_recorded {
            return Ok(self.in_graph(result));
        }
        if !self.is_recording() || !result.track_op() {
            return self.leaf(&result.detach());
        }
        for node in result.sorted_nodes() {
            if node.is_variable() && !own.iter().any(|(own, _)| own.id() == node.id()) {
                let variable = Var::from_tensor(node)?;
                variables.push((variable, self.leaf_node(node)));
            }
        }
        let value = self.plain(true, result.contiguous()?.detach());
        if let Some((node, _)) = value.as_recorded() {
            // The graph of `result` holds its data.
            self.keep(node);
        }
        self.record(&value, CandleOp { result, own, variables });
        Ok(value)
    }
}

/// A piece of candle's graph.
struct CandleOp {
    result: Tensor,
    /// The copies of the inputs that need a gradient, with the inputs' nodes.
    own: Vec<(Var, usize)>,
    /// All other variables.
    variables: Vec<(Var, usize)>,
}

impl Backward for CandleOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let gradient = gradient.plain().into_tensor(self.result.shape())?;
        let store = self.result.mul(&gradient)?.sum_all()?.backward()?;
        for (variable, node) in self.own.iter().chain(&self.variables) {
            if let Some(found) = store.get(variable) {
                gradients.add(*node, Gradient::Plain(Elements::Shared(found.contiguous()?)))?;
            }
        }
        // A section within this op hands a variable's gradient to the backward of the whole graph, which knows all but these.
        for (variable, node) in &self.own {
            for found in take_collected(variable) {
                gradients.add(*node, Gradient::Plain(Elements::Shared(found.contiguous()?)))?;
            }
        }
        Ok(())
    }
}
