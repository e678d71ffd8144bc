//! The backward of batch norm and of what is fused with it.

use super::super::conv2d::Conv2dOp;
use super::super::max_pool2d;
use super::pass;
use crate::Result;
use crate::batch_norm::statistics::Statistics;
use crate::conv2d::hooks::{Affine, Normalize, OutputMask, ThroughStatistics};
use crate::tape::{Backward, Gated, Gradient, Gradients, Normalized, elements};
use candle_core::Tensor;
use std::sync::Arc;

/// A batch norm that has run, and what followed.
pub(super) struct BatchNormOp {
    pub(super) normalized: Arc<Normalized>,
    pub(super) source: Source,
    /// Nodes of the parameters, `[C]` each.
    pub(super) weight: usize,
    pub(super) bias: usize,
    /// A bias that the convolution before left to this op.
    pub(super) conv_bias: Option<usize>,
    pub(super) statistics: Statistics,
    /// `weight / √(var + eps)`.
    pub(super) scale: Vec<f64>,
    /// Whether the statistics depend on `x`.
    pub(super) training: bool,
    pub(super) add_relu: Option<AddRelu>,
    /// The whole output of the convolution, if [`normalized`](Self::normalized) is of its extremes alone.
    pub(super) pooled_from: Option<Tensor>,
}

/// Where what was normalised came from, and its gradient goes.
pub(super) enum Source {
    Node(usize),
    /// Outputs that nothing else reads.
    Convolution(Conv2dOp),
}

/// A residual add and relu that followed.
pub(super) struct AddRelu {
    pub(super) out: Tensor,
    /// Of the residual.
    pub(super) node: usize,
    /// The residual, if it was normalised on load.
    pub(super) lazy: Option<Arc<Normalized>>,
}

impl BatchNormOp {
    fn channels(&self) -> usize {
        self.normalized.center.len()
    }

    /// Back through `relu(y + residual)`: the gradient of `y` and the residual's is the same.
    fn through_add_relu(&self, add_relu: &AddRelu, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<Gated> {
        let mut g = gradient.plain().into_vec()?;
        let lazy = add_relu.lazy.as_deref();
        let mut mask = |residual: Option<(&[f32], &[f32])>| {
            elements(&add_relu.out, |out| {
                elements(&self.normalized.x, |x| {
                    let x = (x, self.normalized.center.as_slice());
                    pass::in_place(&mut g, self.channels(), &OutputMask { out, x, residual })
                })
            })?
        };
        let sums = match lazy {
            Some(lazy) => elements(&lazy.x, |x| mask(Some((x, &lazy.center))))??,
            None => mask(None)?,
        };
        let [sum, products, residual_products] =
            [0, 1, 2].map(|i| sums[i * self.channels()..][..self.channels()].to_vec());
        if gradients.needs(add_relu.node) {
            let g = g.clone();
            let gradient = match lazy {
                Some(_) => Gradient::Gated(Gated {
                    g,
                    sum: sum.clone(),
                    products: residual_products,
                }),
                None => Gradient::owned(g),
            };
            gradients.add(add_relu.node, gradient)?;
        }
        Ok(Gated { g, sum, products })
    }

    /// ```text
    /// dbias = Σ g,  dweight = Σ g (x − mean) · inv_std
    /// dx = weight · inv_std · (g − [dbias + (x − mean) · inv_std · dweight] / M)   the bracket only in training
    /// ```
    fn output_gradient(&self, g: Vec<f32>, dbias: &[f64], dweight: &[f64]) -> OutputGradient<'_> {
        let x = self.pooled_from.as_ref().unwrap_or(&self.normalized.x);
        let statistics = self.training.then(|| {
            let count = (x.elem_count() / self.channels()) as f64;
            let by_channel = |f: &dyn Fn(usize) -> f64| (0..self.channels()).map(f).collect::<Vec<_>>();
            let slope = by_channel(&|c| self.scale[c] * self.statistics.inv_std[c] * dweight[c] / count);
            let (_, rounding) = self.statistics.centers::<f32>();
            let offset = by_channel(&|c| self.scale[c] * dbias[c] / count + slope[c] * rounding[c]);
            [narrow(&slope), narrow(&offset)]
        });
        OutputGradient {
            g,
            x,
            normalized: &self.normalized,
            scale: narrow(&self.scale),
            statistics,
        }
    }
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

/// The gradient of what was normalised: what is left of it to compute.
pub(in super::super) struct OutputGradient<'a> {
    /// Gated; of the normalised elements, which may be the extremes of `x` alone.
    g: Vec<f32>,
    /// What the gradient is of.
    x: &'a Tensor,
    normalized: &'a Normalized,
    /// By which `g` is multiplied.
    scale: Vec<f32>,
    /// What batch statistics pass on: [`ThroughStatistics`]' slope and offset.
    statistics: Option<[Vec<f32>; 2]>,
}

impl OutputGradient<'_> {
    /// The gradient, whole.
    pub(in super::super) fn whole(mut self) -> Result<Vec<f32>> {
        let channels = self.scale.len();
        let mut g = std::mem::take(&mut self.g);
        let Some([slope, offset]) = &self.statistics else {
            let zeros = vec![0.0; channels];
            let affine = Affine {
                center: &zeros,
                scale: &self.scale,
                shift: &zeros,
            };
            pass::in_place(&mut g, channels, &Normalize::<false>(affine));
            return Ok(g);
        };
        self.through(slope, offset, |through| {
            if g.len() < through.x.len() {
                return max_pool2d::scatter_through(self.x, self.normalized, &through, &g);
            }
            pass::in_place(&mut g, channels, &through);
            Ok(g)
        })?
    }

    /// Calls `read` with the gated gradient of each element of `x` and with what finishes it, for a reader that can do so on load; `None`
    /// if the gradient is otherwise to be had.
    pub(in super::super) fn on_load<R>(
        &self,
        read: impl FnOnce(&[f32], ThroughStatistics<'_>) -> R,
    ) -> Result<Option<R>> {
        match &self.statistics {
            Some([slope, offset]) if self.g.len() == self.x.elem_count() => {
                self.through(slope, offset, |through| read(&self.g, through)).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn through<R>(&self, slope: &[f32], offset: &[f32], read: impl FnOnce(ThroughStatistics<'_>) -> R) -> Result<R> {
        elements(self.x, |x| {
            read(ThroughStatistics {
                x,
                center: &self.normalized.center,
                scale: &self.scale,
                slope,
                offset,
            })
        })
    }
}

impl Backward for BatchNormOp {
    fn backward(&self, gradient: Gradient, gradients: &mut Gradients<'_>) -> Result<()> {
        let Gated { g, sum, products } = match &self.add_relu {
            Some(add_relu) => self.through_add_relu(add_relu, gradient, gradients)?,
            None => gradient.gated(&self.normalized)?,
        };
        // The products were taken about the mean rounded to f32.
        let (_, rounding) = self.statistics.centers::<f32>();
        let dweight: Vec<f64> = (0..self.channels())
            .map(|c| (products[c] + rounding[c] * sum[c]) * self.statistics.inv_std[c])
            .collect();
        gradients.add(self.weight, Gradient::owned(narrow(&dweight)))?;
        gradients.add(self.bias, Gradient::owned(narrow(&sum)))?;
        if let Some(conv_bias) = self.conv_bias {
            // Batch statistics take the bias out again: its gradient is 0.
            let factor = if self.training { 0.0 } else { 1.0 };
            let dbias: Vec<f64> = sum
                .iter()
                .zip(&self.scale)
                .map(|(sum, scale)| factor * sum * scale)
                .collect();
            gradients.add(conv_bias, Gradient::owned(narrow(&dbias)))?;
        }
        let gradient = self.output_gradient(g, &sum, &dweight);
        match &self.source {
            Source::Convolution(convolution) => convolution.backward_of(gradient, gradients),
            Source::Node(node) if gradients.needs(*node) => gradients.add(*node, Gradient::owned(gradient.whole()?)),
            Source::Node(_) => Ok(()),
        }
    }
}
