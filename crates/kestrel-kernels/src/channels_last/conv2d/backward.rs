//! The backward of a convolution.

use candle_core::Tensor;

use super::super::small_input;
use super::algorithm::{Algorithm, Input};
use crate::Result;
use crate::conv2d::winograd::hooks::{AffineRelu, Epilogue, Identity, ReluMask, Store};
use crate::conv2d::winograd::{Winograd, Workspace};
use crate::element;
use crate::tape::{Backward, Gated, Gradient, Gradients, elements};

/// A convolution that has run.
pub(super) struct Conv2dOp {
    pub(super) algorithm: Algorithm,
    pub(super) input: Input,
    pub(super) weight: Tensor,
    pub(super) x_node: usize,
    pub(super) weight_node: usize,
    pub(super) bias_node: Option<usize>,
}

impl Backward for Conv2dOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let gradient = gradient.plain();
        if let Some(bias) = self.bias_node.filter(|bias| gradients.needs(*bias)) {
            let [.., k] = self.algorithm.output();
            let dbias = gradient.with(|dy| small_input::bias_gradient(dy, k))?;
            gradients.add(bias, Gradient::owned(dbias))?;
        }
        if gradients.needs(self.weight_node) {
            let dw = gradient.with(|dy| self.dw(dy))??;
            gradients.add(self.weight_node, Gradient::owned(dw))?;
        }
        if gradients.needs(self.x_node)
            && let Algorithm::Winograd(winograd) = &self.algorithm
        {
            let dx = gradient.with(|dy| self.dx(winograd, dy))??;
            gradients.add(self.x_node, dx)?;
        }
        Ok(())
    }
}

impl Conv2dOp {
    fn dw(&self, dy: &[f32]) -> Result<Vec<f32>> {
        let mut dw = vec![0.0; self.weight.elem_count()];
        match (&self.input, self.algorithm) {
            (Input::Whole(x), Algorithm::Winograd(winograd)) => elements(x, |x| {
                Workspace::with_local(|ws| winograd.backward_weights(x, dy, &mut dw, ws));
            })?,
            (Input::Normalized(normalized), Algorithm::Winograd(winograd)) => elements(&normalized.x, |x| {
                let load = AffineRelu(normalized.affine());
                Workspace::with_local(|ws| winograd.backward_weights_with(x, &load, dy, &mut dw, ws));
            })?,
            (
                input,
                Algorithm::SmallInput {
                    input: shape,
                    out_channels,
                    kernel,
                    padding,
                },
            ) => elements(&input.tensor()?, |x| {
                small_input::backward_weights(x, shape, dy, out_channels, kernel, padding, &mut dw);
            })?,
        }
        Ok(dw)
    }

    fn dx(&self, winograd: &Winograd, dy: &[f32]) -> Result<Gradient> {
        match &self.input {
            Input::Whole(_) => Ok(Gradient::owned(self.backward_data(winograd, dy, &Store)?.0)),
            Input::Normalized(normalized) => elements(&normalized.x, |x| {
                let affine = normalized.affine();
                let (g, sums) = self.backward_data(winograd, dy, &ReluMask::<true> { x, affine })?;
                Ok(Gradient::Gated(Gated::new(g, sums)))
            })?,
        }
    }

    fn backward_data<E: Epilogue>(
        &self,
        winograd: &Winograd,
        dy: &[f32],
        epilogue: &E,
    ) -> Result<(Vec<f32>, Vec<f64>)> {
        elements(&self.weight, |w| {
            let mut sums = Vec::new();
            let len = winograd.shape().input().iter().product();
            // SAFETY: the pass writes every element.
            let dx = unsafe {
                element::written(len, |dx| {
                    sums = Workspace::with_local(|ws| winograd.backward_data_with(dy, &Identity, w, epilogue, dx, ws));
                })
            };
            (dx, sums)
        })
    }
}

impl Input {
    /// The input whole.
    fn tensor(&self) -> Result<Tensor> {
        match self {
            Self::Whole(tensor) => Ok(tensor.clone()),
            Self::Normalized(normalized) => normalized.tensor(),
        }
    }
}
