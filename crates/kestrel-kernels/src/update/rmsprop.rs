//! RMSprop, in PyTorch's order of operations.

use candle_core::{Tensor, Var};

use super::check::{self, Range};
use super::fused::pass;
use crate::Result;
use crate::element::{Element, dispatch};

const OP: &str = "rmsprop_step";

/// Constants of a step of RMSprop; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsPropConfig {
    /// Learning rate, at least 0.
    pub lr: f64,
    /// Decay of the squared gradient's mean, in `[0, 1]`.
    pub alpha: f64,
    /// Added to the root of the squared gradient's mean.
    pub eps: f64,
    /// Coupled L2, at least 0: `weight_decay · param` is added to the gradient.
    pub weight_decay: f64,
    /// Share of the momentum buffer that is kept, at least 0; 0 needs no buffer.
    pub momentum: f64,
    /// Whether the gradient is divided by its standard deviation instead of its root mean square.
    pub centered: bool,
}

impl Default for RmsPropConfig {
    fn default() -> Self {
        Self {
            lr: 1e-2,
            alpha: 0.99,
            eps: 1e-8,
            weight_decay: 0.0,
            momentum: 0.0,
            centered: false,
        }
    }
}

/// The state of a parameter, moved in place by [`rmsprop_step`].
#[derive(Clone, Copy, Debug)]
pub struct RmsPropState<'a> {
    /// Mean of the squared gradient.
    pub square_avg: &'a Tensor,
    /// Mean of the gradient; needed if centred.
    pub grad_avg: Option<&'a Tensor>,
    /// Needed with momentum.
    pub momentum_buffer: Option<&'a Tensor>,
}

/// One step of RMSprop on `param`, with its state moved in place.
///
/// ```text
/// g           = grad + weight_decay · param
/// square_avg  = alpha · square_avg + (1 − alpha) g²
/// grad_avg   += (1 − alpha) (g − grad_avg)                              (centered)
/// d           = g / (√square_avg + eps), or g / (√(square_avg − grad_avg²) + eps) if centered
/// buffer      = momentum · buffer + d                                   (with momentum)
/// param      −= lr · (buffer with momentum, else d)
/// ```
///
/// # Shapes
/// All tensors have the same, and all but `grad` are contiguous.
///
/// # Errors
/// [`ShapeMismatch`](crate::Error::ShapeMismatch), [`DTypeMismatch`](crate::Error::DTypeMismatch), candle's
/// `RequiresContiguous`, [`InvalidArgument`](crate::Error::InvalidArgument) for a constant outside its range or a state
/// tensor that is missing; nothing has moved then.
///
/// # Source
/// Tieleman and Hinton 2012, lecture 6.5; `torch.optim.RMSprop`; proved by the golden file `optimizers` of
/// `kestrel-train`.
pub fn rmsprop_step(param: &Var, grad: &Tensor, state: &RmsPropState<'_>, config: &RmsPropConfig) -> Result<()> {
    let grad_avg = state.grad_avg.filter(|_| config.centered);
    let buffer = state.momentum_buffer.filter(|_| config.momentum != 0.0);
    let moved = [
        Some(("rmsprop_step square_avg", state.square_avg)),
        grad_avg.map(|mean| ("rmsprop_step grad_avg", mean)),
        buffer.map(|buffer| ("rmsprop_step momentum_buffer", buffer)),
    ];
    let moved: Vec<check::Named<'_>> = moved.into_iter().flatten().collect();
    check::tensors(OP, param, ("rmsprop_step grad", grad), &moved)?;
    check::constants(
        OP,
        &[
            ("lr", config.lr, Range::NotNegative),
            ("alpha", config.alpha, Range::Unit),
            ("eps", config.eps, Range::NotNegative),
            ("weight_decay", config.weight_decay, Range::NotNegative),
            ("momentum", config.momentum, Range::NotNegative),
        ],
    )?;
    if config.momentum != 0.0 && buffer.is_none() {
        return Err(check::missing(OP, "momentum_buffer"));
    }
    if config.centered && grad_avg.is_none() {
        return Err(check::missing(OP, "grad_avg"));
    }
    let grad = grad.detach();
    if !param.device().is_cpu() {
        return Ok(composite(param, &grad, state.square_avg, grad_avg, buffer, config)?);
    }
    let (square_avg, param) = (state.square_avg, param.as_tensor());
    Ok(dispatch!(OP, param.dtype(), T => {
        let rule = Rule::<T>::new(config);
        match (grad_avg, buffer) {
            (None, None) => pass::<T, 2>(OP, [param, square_avg], &grad, move |[p, s], g| {
                let (s, _, d) = rule.direction(p, s, None, g);
                [p - rule.lr * d, s]
            }),
            (None, Some(buffer)) => pass::<T, 3>(OP, [param, square_avg, buffer], &grad, move |[p, s, b], g| {
                let (s, _, d) = rule.direction(p, s, None, g);
                let b = rule.momentum * b + d;
                [p - rule.lr * b, s, b]
            }),
            (Some(mean), None) => pass::<T, 3>(OP, [param, square_avg, mean], &grad, move |[p, s, m], g| {
                let (s, m, d) = rule.direction(p, s, Some(m), g);
                [p - rule.lr * d, s, m]
            }),
            (Some(mean), Some(buffer)) => {
                pass::<T, 4>(OP, [param, square_avg, mean, buffer], &grad, move |[p, s, m, b], g| {
                    let (s, m, d) = rule.direction(p, s, Some(m), g);
                    let b = rule.momentum * b + d;
                    [p - rule.lr * b, s, m, b]
                })
            }
        }
    })?)
}

/// The constants, rounded to the element type.
#[derive(Clone, Copy)]
struct Rule<T> {
    lr: T,
    alpha: T,
    share: T,
    eps: T,
    weight_decay: T,
    momentum: T,
}

impl<T: Element> Rule<T> {
    fn new(config: &RmsPropConfig) -> Self {
        Self {
            lr: T::narrow(config.lr),
            alpha: T::narrow(config.alpha),
            share: T::narrow(1.0 - config.alpha),
            eps: T::narrow(config.eps),
            weight_decay: T::narrow(config.weight_decay),
            momentum: T::narrow(config.momentum),
        }
    }

    /// The new averages, and the gradient divided by its size.
    #[inline(always)]
    fn direction(self, param: T, square_avg: T, grad_avg: Option<T>, grad: T) -> (T, T, T) {
        // PyTorch leaves the gradient alone without weight decay, so that an infinite parameter makes no NaN.
        let g = if self.weight_decay == T::ZERO {
            grad
        } else {
            grad + self.weight_decay * param
        };
        let square_avg = self.alpha * square_avg + self.share * g * g;
        let (mean, variance) = match grad_avg {
            None => (T::ZERO, square_avg),
            Some(mean) => {
                let mean = mean + self.share * (g - mean);
                (mean, square_avg - mean * mean)
            }
        };
        (square_avg, mean, g / (variance.sqrt() + self.eps))
    }
}

/// The same step from candle's own ops.
fn composite(
    param: &Var,
    grad: &Tensor,
    square_avg: &Tensor,
    grad_avg: Option<&Tensor>,
    buffer: Option<&Tensor>,
    config: &RmsPropConfig,
) -> candle_core::Result<()> {
    let param_now = param.as_detached_tensor();
    let grad = if config.weight_decay == 0.0 {
        grad.clone()
    } else {
        (grad + (&param_now * config.weight_decay)?)?
    };
    let set = |to: &Tensor, from: &Tensor| to.flatten_all()?.slice_set(&from.flatten_all()?, 0, 0);
    let squares = ((square_avg.detach() * config.alpha)? + (grad.sqr()? * (1.0 - config.alpha))?)?;
    let mut variance = squares.clone();
    if let Some(grad_avg) = grad_avg {
        let mean = (grad_avg.detach() + ((&grad - grad_avg.detach())? * (1.0 - config.alpha))?)?;
        variance = (variance - mean.sqr()?)?;
        set(grad_avg, &mean)?;
    }
    set(square_avg, &squares)?;
    let mut direction = (grad / (variance.sqrt()? + config.eps)?)?;
    if let Some(buffer) = buffer {
        direction = ((buffer.detach() * config.momentum)? + direction)?;
        set(buffer, &direction)?;
    }
    param.set(&(param_now - (direction * config.lr)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::check::tests::{distance, gradients, start};

    #[test]
    fn composite_agrees_with_the_kernel() -> candle_core::Result<()> {
        for (momentum, centered) in [(0.0, false), (0.9, false), (0.0, true), (0.9, true)] {
            let config = RmsPropConfig {
                momentum,
                centered,
                weight_decay: 0.1,
                ..RmsPropConfig::default()
            };
            let (fast, slow) = (start()?, start()?);
            let zeros =
                || -> candle_core::Result<_> { Ok([fast.zeros_like()?, fast.zeros_like()?, fast.zeros_like()?]) };
            let (a, b) = (zeros()?, zeros()?);
            for grad in gradients()? {
                let state = RmsPropState {
                    square_avg: &a[0],
                    grad_avg: Some(&a[1]),
                    momentum_buffer: Some(&a[2]),
                };
                rmsprop_step(&fast, &grad, &state, &config)?;
                let (mean, buffer) = (centered.then_some(&b[1]), (momentum != 0.0).then_some(&b[2]));
                composite(&slow, &grad, &b[0], mean, buffer, &config)?;
            }
            assert!(distance(&fast, &slow)? < 1e-14, "{config:?}");
            assert!(distance(&fast, start()?.as_tensor())? > 1e-3, "{config:?}");
            for (a, b) in a.iter().zip(&b) {
                assert!(distance(a, b)? < 1e-14, "{config:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_state_that_is_missing_is_named() -> candle_core::Result<()> {
        let param = start()?;
        let squares = param.zeros_like()?;
        let state = RmsPropState {
            square_avg: &squares,
            grad_avg: None,
            momentum_buffer: None,
        };
        for (momentum, centered, missing) in [(0.9, false, "momentum_buffer"), (0.0, true, "grad_avg")] {
            let config = RmsPropConfig {
                momentum,
                centered,
                ..RmsPropConfig::default()
            };
            let error = rmsprop_step(&param, &squares, &state, &config).unwrap_err().to_string();
            assert!(error.contains(missing), "{error}");
        }
        Ok(())
    }
}
