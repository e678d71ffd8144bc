//! Which kernel runs a convolution, and its forward pass.

use std::mem::MaybeUninit;
use std::sync::Arc;

use candle_core::Tensor;

use super::super::batch_norm::{Gathered, pass};
use super::super::small_input;
use crate::Result;
use crate::conv2d::geometry::Geometry;
use crate::conv2d::winograd::hooks::{AffineRelu, Bias, Epilogue, Identity, Statistics, Store};
use crate::conv2d::winograd::{self, Winograd, Workspace};
use crate::element;
use crate::tape::{Data, Normalized, Value, elements};

/// Below this many input channels, a strip of patches times the weight is faster than Winograd's transforms.
const FEW_CHANNELS: usize = 8;

/// A kernel and the sizes that it is for.
#[derive(Clone, Copy)]
pub(super) enum Algorithm {
    Winograd(Winograd),
    SmallInput {
        input: [usize; 4],
        out_channels: usize,
        kernel: usize,
        padding: usize,
    },
}

/// What is done with the outputs before they are stored.
pub(super) enum Output<'a> {
    Plain,
    /// `[K]` is added.
    Bias(&'a Tensor),
    /// Batch norm's sums about this center, `[K]`, are gathered.
    Statistics(Vec<f32>),
}

/// A convolution's input: whole, or to be normalised on load.
pub(super) enum Input {
    Whole(Tensor),
    Normalized(Arc<Normalized>),
}

impl Algorithm {
    /// The kernel that takes these sizes, if there is one.
    pub(super) fn choose(g: &Geometry, needs_dx: bool, winograd: bool) -> Option<Self> {
        if !(g.stride == 1 && g.dilation == 1 && g.groups == 1 && g.batch > 0) {
            return None;
        }
        let input = [g.batch, g.height, g.width, g.in_channels];
        if g.in_channels >= FEW_CHANNELS {
            // What Winograd's own checks refuse, such as another kernel size, is the general op's.
            let fits = g.kernel_height == 3 && g.kernel_width == 3 && g.padding <= 2 && winograd;
            let shape = winograd::Shape::new(input, g.out_channels, g.padding).ok();
            return shape.filter(|_| fits).map(|shape| Self::Winograd(Winograd::new(shape)));
        }
        // That kernel has no gradient for its input, and images need none.
        (g.kernel_height == g.kernel_width && !needs_dx).then_some(Self::SmallInput {
            input,
            out_channels: g.out_channels,
            kernel: g.kernel_height,
            padding: g.padding,
        })
    }

    /// `[N, P, Q, K]`.
    pub(super) fn output(&self) -> [usize; 4] {
        match *self {
            Self::Winograd(ref winograd) => winograd.shape().output(),
            Self::SmallInput {
                input: [n, h, w, _],
                out_channels,
                kernel,
                padding,
            } => [
                n,
                h + 2 * padding + 1 - kernel,
                w + 2 * padding + 1 - kernel,
                out_channels,
            ],
        }
    }

    /// A value as this kernel reads it.
    pub(super) fn input(&self, x: &Value) -> Result<Input> {
        Ok(match (self, x.as_recorded()) {
            (Self::Winograd(_), Some((_, Data::Normalized(normalized)))) if normalized.relu => {
                Input::Normalized(Arc::clone(normalized))
            }
            _ => Input::Whole(x.tensor()?),
        })
    }

    /// The outputs, and batch norm's sums if they are asked for.
    pub(super) fn forward(
        &self,
        input: &Input,
        weight: &Tensor,
        output: Output<'_>,
    ) -> Result<(Vec<f32>, Option<Gathered>)> {
        Ok(match output {
            Output::Plain => (self.run(input, weight, &Store)?.0, None),
            Output::Bias(bias) => {
                let bias: Vec<f32> = bias.to_vec1()?;
                (self.run(input, weight, &Bias { bias: &bias })?.0, None)
            }
            Output::Statistics(center) => {
                let (y, sums) = self.run(input, weight, &Statistics { center: &center })?;
                (y, Some(Gathered { center, sums }))
            }
        })
    }

    /// The outputs through an epilogue, and its sums.
    pub(super) fn run<E: Epilogue>(
        &self,
        input: &Input,
        weight: &Tensor,
        epilogue: &E,
    ) -> Result<(Vec<f32>, Vec<f64>)> {
        elements(weight, |w| match input {
            Input::Whole(x) => elements(x, |x| self.run_whole(x, w, epilogue)),
            Input::Normalized(normalized) => {
                let Self::Winograd(winograd) = self else {
                    let x = normalized.tensor()?;
                    return elements(&x, |x| self.run_whole(x, w, epilogue));
                };
                let load = AffineRelu(normalized.affine());
                elements(&normalized.x, |x| {
                    self.written(|y| Workspace::with_local(|ws| winograd.forward_with(x, &load, w, epilogue, y, ws)))
                })
            }
        })?
    }

    fn run_whole<E: Epilogue>(&self, x: &[f32], w: &[f32], epilogue: &E) -> (Vec<f32>, Vec<f64>) {
        match *self {
            Self::Winograd(winograd) => {
                self.written(|y| Workspace::with_local(|ws| winograd.forward_with(x, &Identity, w, epilogue, y, ws)))
            }
            Self::SmallInput {
                input,
                out_channels,
                kernel,
                padding,
            } => {
                let mut y = vec![0.0; self.output().iter().product()];
                small_input::forward(x, input, w, None, out_channels, kernel, padding, &mut y);
                let sums = pass::in_place(&mut y, out_channels, epilogue);
                (y, sums)
            }
        }
    }

    /// Outputs that `run` writes, and the sums that it returns.
    fn written(&self, run: impl FnOnce(&mut [MaybeUninit<f32>]) -> Vec<f64>) -> (Vec<f32>, Vec<f64>) {
        let mut sums = Vec::new();
        // SAFETY: a Winograd pass, which alone is run here, writes every output.
        let y = unsafe { element::written(self.output().iter().product(), |y| sums = run(y)) };
        (y, sums)
    }
}
