//! Which kernel runs a convolution, and its forward pass.

use std::mem::MaybeUninit;
use std::sync::Arc;

use candle_core::Tensor;

use super::super::batch_norm::Gathered;
use crate::Result;
use crate::conv2d::Conv2dConfig;
use crate::conv2d::Workspace;
use crate::conv2d::direct::{self, Direct};
use crate::conv2d::geometry::Geometry;
use crate::conv2d::hooks::{AffineRelu, AndExtremes, Bias, Epilogue, Identity, Statistics, Store, Stores};
use crate::conv2d::winograd::{self, Winograd};
use crate::element;
use crate::tape::{Data, Normalized, Pointwise, Value, elements, tensor};

/// Below this many input channels, Winograd's transforms cost more than they save.
const FEW_CHANNELS: usize = 8;

/// A kernel and the sizes that it is for.
#[derive(Clone, Copy)]
pub(super) enum Algorithm {
    Winograd(Winograd),
    Direct(Direct),
}

/// What is done with the outputs before they are stored.
pub(super) enum Output<'a> {
    Plain,
    /// `[K]` is added.
    Bias(&'a Tensor),
    /// Batch norm's sums about this center, `[K]`, are gathered.
    Statistics(Vec<f32>),
    /// The same, and of each 2x2 the largest output of a channel whose sign is 1, the smallest where it is -1: those that a batch norm
    /// with weights of these signs makes the largest.
    StatisticsAndExtremes {
        center: Vec<f32>,
        sign: Vec<f32>,
    },
}

/// What an epilogue has stored, and its sums.
pub(super) struct Ran {
    /// All outputs, if it stores them.
    pub(super) y: Vec<f32>,
    /// The pooled ones, if it stores them.
    pub(super) pooled: Vec<f32>,
    pub(super) sums: Vec<f64>,
}

/// A convolution's input: whole, or to be normalised on load.
pub(super) enum Input {
    Whole(Tensor),
    Normalized(Arc<Normalized>),
}

impl Algorithm {
    /// The kernel that takes these sizes, if there is one: groups have none.
    pub(super) fn choose(g: &Geometry, config: &Conv2dConfig, winograd: bool) -> Option<Self> {
        if g.groups != 1 {
            return None;
        }
        let input = [g.batch, g.height, g.width, g.in_channels];
        let kernel = [g.kernel_height, g.kernel_width];
        if winograd && kernel == [3, 3] && g.dilation == 1 && g.in_channels >= FEW_CHANNELS {
            let shape = match (g.stride, g.padding) {
                // A tile has 4x4 outputs: of 2x2, it makes as many products as there are.
                (1, 0..=2) if g.out_height.max(g.out_width) > 2 => {
                    Some(winograd::Shape::new(input, g.out_channels, g.padding))
                }
                (2, 1) => Some(winograd::Shape::strided(input, g.out_channels)),
                _ => None,
            };
            // What Winograd's own checks refuse, such as an empty batch, is the direct kernel's.
            if let Some(Ok(shape)) = shape {
                return Some(Self::Winograd(Winograd::new(shape)));
            }
        }
        let shape = direct::Shape::new(input, g.out_channels, kernel, config).ok()?;
        Some(Self::Direct(Direct::new(shape)))
    }

    /// `[N, P, Q, K]`.
    pub(super) fn output(&self) -> [usize; 4] {
        match self {
            Self::Winograd(winograd) => winograd.shape().output(),
            Self::Direct(direct) => direct.shape().output(),
        }
    }

    /// Whether its epilogue can pool.
    pub(super) fn can_pool(&self) -> bool {
        let [_, p, q, _] = self.output();
        matches!(self, Self::Winograd(_)) && p.is_multiple_of(2) && q.is_multiple_of(2)
    }

    /// Elements of the input.
    pub(super) fn input_len(&self) -> usize {
        let input = match self {
            Self::Winograd(winograd) => winograd.shape().input(),
            Self::Direct(direct) => direct.shape().input(),
        };
        input.iter().product()
    }

    /// A value as this kernel reads it.
    pub(super) fn input(&self, x: &Value) -> Result<Input> {
        Ok(match (self, x.as_recorded()) {
            (Self::Winograd(_), Some((_, Data::Normalized(normalized))))
                if normalized.activation == Pointwise::Relu =>
            {
                Input::Normalized(Arc::clone(normalized))
            }
            _ => Input::Whole(x.whole()?),
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
            Output::Plain => (self.run(input, weight, &Store)?.y, None),
            Output::Bias(bias) => {
                let bias: Vec<f32> = bias.to_vec1()?;
                (self.run(input, weight, &Bias { bias: &bias })?.y, None)
            }
            Output::Statistics(center) => {
                let Ran { y, sums, .. } = self.run(input, weight, &Statistics { center: &center })?;
                let gathered = Gathered {
                    center,
                    sums,
                    extremes: None,
                };
                (y, Some(gathered))
            }
            Output::StatisticsAndExtremes { center, sign } => {
                let epilogue = AndExtremes {
                    epilogue: Statistics { center: &center },
                    sign: &sign,
                };
                let Ran { y, pooled, sums } = self.run(input, weight, &epilogue)?;
                let [n, p, q, k] = self.output();
                let gathered = Gathered {
                    center,
                    sums,
                    extremes: Some(tensor(pooled, &[n, p / 2, q / 2, k])?),
                };
                (y, Some(gathered))
            }
        })
    }

    /// The outputs through an epilogue, and its sums.
    pub(super) fn run<E: Epilogue>(&self, input: &Input, weight: &Tensor, epilogue: &E) -> Result<Ran> {
        elements(weight, |w| match (self, input) {
            (Self::Winograd(winograd), Input::Whole(x)) => elements(x, |x| {
                self.written::<E>(|y, pooled, ws| {
                    winograd.forward_pooled_with(x, &Identity, w, epilogue, y, pooled, ws)
                })
            }),
            (Self::Winograd(winograd), Input::Normalized(normalized)) => elements(&normalized.x, |x| {
                let load = AffineRelu(normalized.affine());
                self.written::<E>(|y, pooled, ws| winograd.forward_pooled_with(x, &load, w, epilogue, y, pooled, ws))
            }),
            (Self::Direct(direct), input) => elements(&input.tensor()?, |x| {
                self.written::<E>(|y, _, ws| direct.forward_with(x, w, epilogue, y, ws))
            }),
        })?
    }

    /// Outputs that `run` writes, all and pooled as far as `E` stores them, and the sums that it returns.
    fn written<E: Epilogue>(
        &self,
        run: impl FnOnce(&mut [MaybeUninit<f32>], &mut [MaybeUninit<f32>], &mut Workspace) -> Vec<f64>,
    ) -> Ran {
        let outputs: usize = self.output().iter().product();
        let [all, pooled] = match E::STORES {
            Stores::All => [outputs, 0],
            Stores::Pooled => [0, outputs / 4],
            Stores::Both => [outputs, outputs / 4],
        };
        let (mut y, mut sums) = (Vec::new(), Vec::new());
        let run = |pooled: &mut [MaybeUninit<f32>]| {
            let run = |y: &mut [MaybeUninit<f32>]| sums = Workspace::with_local(|ws| run(y, pooled, ws));
            // SAFETY: both kernels' passes, which alone are run here, write every output that the epilogue stores.
            y = unsafe { element::written(all, run) };
        };
        // SAFETY: as above, and those that pool write every pooled one.
        let pooled = unsafe { element::written(pooled, run) };
        Ran { y, pooled, sums }
    }
}

impl Input {
    /// The input whole.
    pub(super) fn tensor(&self) -> Result<Tensor> {
        match self {
            Self::Whole(tensor) => Ok(tensor.clone()),
            Self::Normalized(normalized) => normalized.tensor(),
        }
    }
}
