//! Batch normalisation on channels-last tensors, fused with what follows it: a relu, a gelu, or a residual add and a relu.
//!
//! Within a [`tape::section`](crate::tape::section) a normalised tensor is not written: its readers normalise on load, and
//! pass its gradient back through the relu as they make it.

mod backward;
pub(crate) mod pass;
pub(crate) mod rows;

use super::conv2d::Conv2dOp;
use crate::batch_norm::statistics::{Statistics, UpdateRunning};
use crate::batch_norm::{self, BatchNormConfig, batch_norm_eval, batch_norm_train};
use crate::conv2d::hooks::NormalizeAddRelu;
use crate::gelu::gelu;
use crate::relu::relu;
use crate::tape::{self, Data, Normalized, Pointwise, Tape, Value, elements, tensor};
use crate::{Error, Result, autocast, element};
pub(super) use backward::OutputGradient;
use backward::{AddRelu, BatchNormOp, Source};
use candle_core::Tensor;
use std::sync::Arc;

const OP: &str = "batch_norm";
const RESIDUAL: &str = "batch_norm residual";

/// The square of the most deviations between a convolution's center and the mean at which its sums are trusted: the variance
/// is what is left of a sum so many times as large, and f32 has seven digits.
const FAR: f64 = 25.0;

/// The parameters and buffers of a batch norm, all `[C]`, and which statistics it normalises by.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm<'a> {
    /// By which the normalised values are multiplied.
    pub weight: &'a Tensor,
    /// What is added to them.
    pub bias: &'a Tensor,
    /// Moved in place when training.
    pub running_mean: &'a Tensor,
    /// Moved in place when training.
    pub running_var: &'a Tensor,
    /// The constants.
    pub config: BatchNormConfig,
    /// Whether to normalise by the batch's own statistics and move the running ones, or by the running ones.
    pub training: bool,
}

/// What follows a batch norm, fused with it.
#[derive(Clone, Copy, Debug)]
pub enum Activation<'a> {
    /// Nothing: `batch_norm(x)`.
    None,
    /// `relu(batch_norm(x))`.
    Relu,
    /// `gelu(batch_norm(x))`, as [`gelu`]. Its result is written, for it costs more than a pass over memory; the
    /// normalised values are not.
    Gelu,
    /// `relu(batch_norm(x) + residual)`, the end of a residual block; the residual has the shape of `x`.
    AddRelu(&'a Value),
}

/// The statistics that a convolution has gathered of its output.
pub(crate) struct Gathered {
    /// About which they were taken, `[C]`.
    pub(crate) center: Vec<f32>,
    /// Those of [`hooks::Statistics`](crate::conv2d::hooks::Statistics).
    pub(crate) sums: Vec<f64>,
    /// `[N, P/2, Q/2, C]`, of each 2x2 outputs the one that will be the largest when it is normalised, if it is to be pooled.
    pub(crate) extremes: Option<Tensor>,
}

/// A convolution that has run, whose output only a batch norm reads.
pub(super) struct Convolved<'a> {
    /// `[N, P, Q, K]`.
    pub(super) y: Tensor,
    pub(super) op: Conv2dOp,
    /// Whether the op has a gradient to compute.
    pub(super) needs_grad: bool,
    pub(super) gathered: Option<Gathered>,
    /// A bias that was not added: batch statistics take it out again.
    pub(super) bias: Option<&'a Tensor>,
}

/// Normalises by the batch's own statistics, moves the running statistics in place, and rectifies.
///
/// ```text
/// mean = Σ x / M,  var = Σ (x − mean)² / M,  M = N·H·W
/// y = relu((x − mean) / √(var + eps) · weight + bias)
/// running_mean = (1 − momentum) running_mean + momentum · mean
/// running_var  = (1 − momentum) running_var  + momentum · var · M / (M − 1)
/// ```
///
/// The same numbers as [`batch_norm_train`] and [`relu()`] of a channels-first tensor, NaN included. The backward goes
/// through the batch statistics; none goes to the running ones.
///
/// # Shapes
/// `x` and the result `[N, H, W, C]`, the result contiguous; all others `[C]`, contiguous where they are updated.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::TooFewValuesPerChannel`] for `M < 2`, candle's
/// `RequiresContiguous`; the running statistics are then untouched.
///
/// # Source
/// Ioffe and Szegedy 2015, algorithm 1; `relu(batch_norm(training=True))` of `torch.nn.functional`; tested against
/// [`batch_norm_train`], which `tests/golden/batch_norm.safetensors` proves.
pub fn batch_norm_relu_train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running_mean: &Tensor,
    running_var: &Tensor,
    config: &BatchNormConfig,
) -> Result<Tensor> {
    let batch_norm = BatchNorm {
        weight,
        bias,
        running_mean,
        running_var,
        config: *config,
        training: true,
    };
    tape::section(|tape| {
        let x = tape.leaf(x)?;
        tape.batch_norm(&x, &batch_norm, Activation::Relu)
    })
}

/// Normalises by the running statistics, which stay as they are, and rectifies.
///
/// ```text
/// y = relu((x − running_mean) / √(running_var + eps) · weight + bias)
/// ```
///
/// The backward gives gradients of `x`, `weight` and `bias`, each only if something needs it.
///
/// # Shapes
/// `x` and the result `[N, H, W, C]`, the result contiguous; all others `[C]`.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`].
///
/// # Source
/// `relu(batch_norm(training=False))` of `torch.nn.functional`; tested against [`batch_norm_eval`], which
/// `tests/golden/batch_norm.safetensors` proves.
pub fn batch_norm_relu_eval(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running_mean: &Tensor,
    running_var: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let batch_norm = BatchNorm {
        weight,
        bias,
        running_mean,
        running_var,
        config: BatchNormConfig {
            eps,
            ..BatchNormConfig::default()
        },
        training: false,
    };
    tape::section(|tape| {
        let x = tape.leaf(x)?;
        tape.batch_norm(&x, &batch_norm, Activation::Relu)
    })
}

impl Tape {
    /// Batch normalisation of `[N, H, W, C]`, fused with what follows it.
    ///
    /// ```text
    /// y = activation((x − mean) / √(var + eps) · weight + bias)
    /// ```
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::TooFewValuesPerChannel`] when training on fewer than two
    /// values a channel, candle's `RequiresContiguous` for running statistics that cannot be moved; these are then
    /// untouched. [`Error::ForeignValue`] for another tape's value.
    ///
    /// # Source
    /// `torch.nn.BatchNorm2d`; tested against [`batch_norm_train`] and [`batch_norm_eval`].
    pub fn batch_norm(&mut self, x: &Value, batch_norm: &BatchNorm<'_>, activation: Activation<'_>) -> Result<Value> {
        if let Some(precision) = autocast::of_value(x) {
            self.check_residual(x, activation)?;
            return self.rounded_batch_norm(precision, x, batch_norm, activation);
        }
        self.check(x)?;
        self.check_residual(x, activation)?;
        #[cfg(feature = "cuda")]
        if let Some(on_gpu) = x.on_gpu() {
            return crate::cuda::normalize(self, on_gpu, None, batch_norm, activation);
        }
        let Some((node, _)) = x.as_recorded() else {
            let y = in_graph(&x.whole()?, batch_norm, activation)?;
            return Ok(self.in_graph(y));
        };
        let x = x.whole()?;
        element::dims4("batch_norm input", &x, "[N, H, W, C]")?;
        let statistics = batch_statistics(&x, None, None, batch_norm)?;
        self.keep(node);
        let needs_grad = self.needs_grad(node);
        let normalizing = Normalizing {
            x,
            pooled_from: None,
            statistics,
            source: Source::Node(node),
            needs_grad,
            conv_bias: None,
        };
        self.normalize(normalizing, batch_norm, activation)
    }

    /// [`batch_norm`](Self::batch_norm) of a convolution's output, with `[N, P/2, Q/2, K]` as a result if its extremes were gathered.
    pub(super) fn normalize_convolved(
        &mut self,
        convolved: Convolved<'_>,
        batch_norm: &BatchNorm<'_>,
        activation: Activation<'_>,
    ) -> Result<Value> {
        let Convolved {
            y,
            op,
            needs_grad,
            mut gathered,
            bias,
        } = convolved;
        self.check_residual_of(&y, activation)?;
        let statistics = batch_statistics(&y, gathered.as_ref(), bias, batch_norm)?;
        let (x, pooled_from) = match gathered.as_mut().and_then(|gathered| gathered.extremes.take()) {
            Some(extremes) => (extremes, Some(y)),
            None => (y, None),
        };
        let normalizing = Normalizing {
            x,
            pooled_from,
            statistics,
            source: Source::Convolution(op),
            needs_grad,
            conv_bias: bias,
        };
        self.normalize(normalizing, batch_norm, activation)
    }

    fn normalize(
        &mut self,
        normalizing: Normalizing<'_>,
        batch_norm: &BatchNorm<'_>,
        activation: Activation<'_>,
    ) -> Result<Value> {
        let Normalizing {
            x,
            pooled_from,
            statistics,
            source,
            needs_grad,
            conv_bias,
        } = normalizing;
        let weight: Vec<f32> = batch_norm.weight.to_vec1()?;
        let bias: Vec<f32> = batch_norm.bias.to_vec1()?;
        let (center, rounding) = statistics.centers::<f32>();
        let scales = weight.iter().zip(&statistics.inv_std);
        let scale: Vec<f64> = scales.map(|(weight, inv_std)| f64::from(*weight) * inv_std).collect();
        let shifts = rounding.iter().zip(&scale).zip(&bias);
        let shift = shifts.map(|((rounding, scale), bias)| (f64::from(*bias) + rounding * scale) as f32);
        let pointwise = match activation {
            Activation::None | Activation::AddRelu(_) => Pointwise::Identity,
            Activation::Relu => Pointwise::Relu,
            Activation::Gelu => Pointwise::Gelu,
        };
        let normalized = Arc::new(Normalized {
            x,
            shift: shift.collect(),
            scale: scale.iter().map(|scale| *scale as f32).collect(),
            center,
            activation: pointwise,
            whole: Default::default(),
        });
        let nodes = [batch_norm.weight, batch_norm.bias].map(|tensor| self.leaf_node(tensor));
        let conv_bias = conv_bias.map(|bias| self.leaf_node(bias));
        let mut parameters = nodes.into_iter().chain(conv_bias);
        let needs_grad = needs_grad || parameters.any(|node| self.needs_grad(node));
        let op = BatchNormOp {
            normalized: Arc::clone(&normalized),
            source,
            weight: nodes[0],
            bias: nodes[1],
            conv_bias,
            statistics,
            scale,
            training: batch_norm.training,
            add_relu: None,
            pooled_from,
        };
        match activation {
            Activation::None | Activation::Relu | Activation::Gelu => {
                let y = self.normalized(needs_grad, normalized);
                self.record(&y, op);
                Ok(y)
            }
            Activation::AddRelu(residual) => self.add_relu(residual, op, needs_grad),
        }
    }

    /// Errors unless what is added to a batch norm of `x` has its shape and element type; on a GPU a section converts.
    pub(super) fn check_residual(&self, x: &Value, activation: Activation<'_>) -> Result<()> {
        if x.as_recorded().is_none() || x.shape_tensor().device().is_cpu() {
            return self.check_residual_of(x.shape_tensor(), activation);
        }
        let Activation::AddRelu(residual) = activation else {
            return Ok(());
        };
        self.check(residual)?;
        element::require_shape(RESIDUAL, residual.shape_tensor(), x.dims())
    }

    /// The same of a tensor.
    fn check_residual_of(&self, x: &Tensor, activation: Activation<'_>) -> Result<()> {
        let Activation::AddRelu(residual) = activation else {
            return Ok(());
        };
        self.check(residual)?;
        let residual = residual.shape_tensor();
        element::require_same_dtype(RESIDUAL, residual, x)?;
        element::require_shape(RESIDUAL, residual, x.dims())
    }

    /// `relu(normalized + residual)`, whole.
    fn add_relu(&mut self, residual: &Value, op: BatchNormOp, needs_grad: bool) -> Result<Value> {
        // A residual from candle's graph enters the tape here.
        let leaf;
        let (residual, (node, data)) = match residual.as_recorded() {
            Some(recorded) => (residual, recorded),
            None => {
                leaf = self.leaf(&residual.whole()?)?;
                match leaf.as_recorded() {
                    Some(recorded) => (&leaf, recorded),
                    None => return Err(element::not_a_float("batch_norm residual", leaf.whole()?.dtype())),
                }
            }
        };
        let lazy = match data {
            Data::Normalized(lazy) if lazy.activation == Pointwise::Identity => Some(Arc::clone(lazy)),
            _ => None,
        };
        let addend = match &lazy {
            Some(lazy) => lazy.x.clone(),
            None => residual.whole()?,
        };
        let normalized = &op.normalized;
        let channels = normalized.center.len();
        let out = elements(&normalized.x, |x| {
            elements(&addend, |residual| {
                let epilogue = NormalizeAddRelu {
                    affine: normalized.affine(),
                    residual,
                    residual_affine: lazy.as_ref().map(|lazy| lazy.affine()),
                };
                pass::map(x, channels, &epilogue).0
            })
        })??;
        let out = tensor(out, normalized.x.dims())?;
        let needs_grad = needs_grad || self.needs_grad(node);
        let y = self.plain(needs_grad, out.clone());
        if let Some((node, _)) = y.as_recorded() {
            self.keep(node);
        }
        let add_relu = Some(AddRelu { out, node, lazy });
        self.record(&y, BatchNormOp { add_relu, ..op });
        Ok(y)
    }
}

/// What is to be normalised, and by what.
struct Normalizing<'a> {
    x: Tensor,
    /// The whole output of the convolution, if `x` is of its extremes alone.
    pooled_from: Option<Tensor>,
    statistics: Statistics,
    source: Source,
    /// Whether the source needs a gradient.
    needs_grad: bool,
    conv_bias: Option<&'a Tensor>,
}

/// The statistics to normalise by, of `x` as it is, the convolution's bias left out; moves the running ones.
fn batch_statistics(
    x: &Tensor,
    gathered: Option<&Gathered>,
    conv_bias: Option<&Tensor>,
    batch_norm: &BatchNorm<'_>,
) -> Result<Statistics> {
    let BatchNorm {
        weight,
        bias,
        running_mean,
        running_var,
        config,
        training,
    } = *batch_norm;
    let planes = batch_norm::check(&x.permute((0, 3, 1, 2))?, [weight, bias, running_mean, running_var])?;
    let read = |tensor: &Tensor| -> candle_core::Result<Vec<f64>> {
        Ok(tensor.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
    };
    let conv_bias = match conv_bias {
        Some(bias) => read(bias)?,
        None => vec![0.0; planes.channels],
    };
    if !training {
        let mean = read(running_mean)?.into_iter().zip(conv_bias);
        let mean = mean.map(|(mean, bias)| mean - bias).collect();
        return Ok(Statistics::new(mean, read(running_var)?, config.eps));
    }
    if planes.values_per_channel() < 2 {
        return Err(Error::TooFewValuesPerChannel { got: x.dims().to_vec() });
    }
    for running in [running_mean, running_var] {
        element::require_contiguous(OP, running)?;
    }
    let gathered = gathered.and_then(|Gathered { center, sums, .. }| {
        let statistics = rows::from_sums(center, sums, planes.values_per_channel(), config.eps);
        // Of a center far from the mean, f32 sums leave too few digits for the variance, or overflow; of one that is no
        // number they are none.
        let is_near = |channel: usize| {
            let (mean, var) = (statistics.mean[channel], statistics.var[channel]);
            let offset = mean - f64::from(center[channel]);
            var.is_finite() && offset * offset <= FAR * (var + config.eps)
        };
        (0..planes.channels).all(is_near).then_some(statistics)
    });
    let statistics = match gathered {
        Some(statistics) => statistics,
        None => elements(x, |x| rows::statistics(x, planes.channels, config.eps))?,
    };
    let mean = statistics.mean.iter().zip(conv_bias).map(|(mean, bias)| mean + bias);
    let new = [mean.collect(), statistics.unbiased_var(&planes)];
    for (running, new) in [running_mean, running_var].into_iter().zip(new) {
        let momentum = config.momentum;
        running.inplace_op1(&UpdateRunning { new, momentum })?;
    }
    Ok(statistics)
}

/// The same by the channels-first ops of candle's graph.
pub(crate) fn in_graph(x: &Tensor, batch_norm: &BatchNorm<'_>, activation: Activation<'_>) -> Result<Tensor> {
    let BatchNorm {
        weight,
        bias,
        running_mean,
        running_var,
        ref config,
        training,
    } = *batch_norm;
    let planes = x.permute((0, 3, 1, 2))?;
    let y = if training {
        batch_norm_train(&planes, weight, bias, running_mean, running_var, config)?
    } else {
        batch_norm_eval(&planes, weight, bias, running_mean, running_var, config.eps)?
    };
    let y = match activation {
        Activation::None => y,
        Activation::Relu => relu(&y)?,
        Activation::Gelu => gelu(&y)?,
        Activation::AddRelu(residual) => relu(&y.add(&residual.whole()?.permute((0, 3, 1, 2))?)?)?,
    };
    Ok(y.permute((0, 2, 3, 1))?.contiguous()?)
}

#[cfg(test)]
mod tests;
