//! The backward of a convolution.

use std::mem::MaybeUninit;

use candle_core::Tensor;

use super::algorithm::{Algorithm, Input};
use crate::Result;
use crate::channels_last::batch_norm::OutputGradient;
use crate::channels_last::bias::bias_gradient;
use crate::conv2d::Workspace;
use crate::conv2d::hooks::{AffineRelu, Epilogue, Identity, ReluMask, Store};
use crate::element;
use crate::tape::{Backward, Gated, Gradient, Gradients, elements};

/// A convolution that has run.
pub(in super::super) struct Conv2dOp {
    pub(super) algorithm: Algorithm,
    pub(super) input: Input,
    pub(super) weight: Tensor,
    /// Of the input, if it is a value of the tape.
    pub(super) x_node: Option<usize>,
    pub(super) weight_node: usize,
    pub(super) bias_node: Option<usize>,
}

impl Backward for Conv2dOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let gradient = gradient.plain();
        if let Some(bias) = self.bias_node.filter(|bias| gradients.needs(*bias)) {
            let [.., k] = self.algorithm.output();
            let dbias = gradient.with(|dy| bias_gradient(dy, k))?;
            gradients.add(bias, Gradient::owned(dbias))?;
        }
        if gradients.needs(self.weight_node) {
            let dw = gradient.with(|dy| self.dw(dy))??;
            gradients.add(self.weight_node, Gradient::owned(dw))?;
        }
        if let Some(x_node) = self.needed_input(gradients) {
            let dx = gradient.with(|dy| self.dx(dy))??;
            gradients.add(x_node, dx)?;
        }
        Ok(())
    }
}

impl Conv2dOp {
    /// The node of the input, if something needs its gradient.
    fn needed_input(&self, gradients: &Gradients<'_>) -> Option<usize> {
        self.x_node.filter(|node| gradients.needs(*node))
    }

    /// The backward for the gradient that batch norm has of the output, which goes through batch norm's statistics on load where it is
    /// read but once: in a first layer, whose input needs no gradient.
    pub(in super::super) fn backward_of(
        &self,
        gradient: OutputGradient<'_>,
        gradients: &mut Gradients<'_>,
    ) -> Result<()> {
        let needs_input = self.needed_input(gradients).is_some();
        if !gradients.needs(self.weight_node) && !needs_input {
            return Ok(());
        }
        if let (Algorithm::Direct(direct), false) = (&self.algorithm, needs_input) {
            let dw = gradient.on_load(|g, through| {
                let mut dw = vec![0.0; self.weight.elem_count()];
                elements(&self.input.tensor()?, |x| {
                    Workspace::with_local(|ws| direct.backward_weights_with(x, g, &through, &mut dw, ws));
                })?;
                Result::Ok(dw)
            })?;
            if let Some(dw) = dw {
                return gradients.add(self.weight_node, Gradient::owned(dw?));
            }
        }
        self.backward(Gradient::owned(gradient.whole()?), gradients)
    }

    fn dw(&self, dy: &[f32]) -> Result<Vec<f32>> {
        let mut dw = vec![0.0; self.weight.elem_count()];
        Workspace::with_local(|ws| match (&self.algorithm, &self.input) {
            (Algorithm::Winograd(winograd), Input::Whole(x)) => {
                elements(x, |x| winograd.backward_weights(x, dy, &mut dw, ws))
            }
            (Algorithm::Winograd(winograd), Input::Normalized(normalized)) => elements(&normalized.x, |x| {
                let load = AffineRelu(normalized.affine());
                winograd.backward_weights_with(x, &load, dy, &mut dw, ws);
            }),
            (Algorithm::Direct(direct), input) => {
                elements(&input.tensor()?, |x| direct.backward_weights(x, dy, &mut dw, ws))
            }
        })?;
        Ok(dw)
    }

    fn dx(&self, dy: &[f32]) -> Result<Gradient> {
        match &self.input {
            Input::Whole(_) => Ok(Gradient::owned(self.backward_data(dy, &Store)?.0)),
            Input::Normalized(normalized) => elements(&normalized.x, |x| {
                let affine = normalized.affine();
                let (g, sums) = self.backward_data(dy, &ReluMask::<true> { x, affine })?;
                Ok(Gradient::Gated(Gated::new(g, sums)))
            })?,
        }
    }

    fn backward_data<E: Epilogue>(&self, dy: &[f32], epilogue: &E) -> Result<(Vec<f32>, Vec<f64>)> {
        elements(&self.weight, |w| {
            let mut sums = Vec::new();
            let run = |dx: &mut [MaybeUninit<f32>]| {
                sums = Workspace::with_local(|ws| match &self.algorithm {
                    Algorithm::Winograd(winograd) => winograd.backward_data_with(dy, &Identity, w, epilogue, dx, ws),
                    Algorithm::Direct(direct) => direct.backward_data_with(dy, w, epilogue, dx, ws),
                });
            };
            // SAFETY: both kernels' passes write every element.
            let dx = unsafe { element::written(self.algorithm.input_len(), run) };
            (dx, sums)
        })
    }
}
