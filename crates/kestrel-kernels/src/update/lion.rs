//! Lion: the sign of an interpolated momentum, with decoupled weight decay.

use candle_core::{Tensor, Var};

use super::check::{self, Range};
use super::fused::pass;
use crate::Result;
use crate::element::{Element, dispatch};

const OP: &str = "lion_step";

/// Constants of a step of Lion; the defaults are the paper's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LionConfig {
    /// Learning rate, at least 0.
    pub lr: f64,
    /// Share of the momentum in the direction, in `[0, 1)`.
    pub beta1: f64,
    /// Decay of the momentum, in `[0, 1)`.
    pub beta2: f64,
    /// Decoupled, at least 0: the parameter shrinks by `lr · weight_decay` of itself a step.
    pub weight_decay: f64,
}

impl Default for LionConfig {
    fn default() -> Self {
        Self {
            lr: 1e-4,
            beta1: 0.9,
            beta2: 0.99,
            weight_decay: 0.0,
        }
    }
}

/// One step of Lion on `param`, with the momentum moved in place.
///
/// ```text
/// c        = beta1 · exp_avg + (1 − beta1) grad
/// param    = param (1 − lr · weight_decay) − lr · sign(c)
/// exp_avg  = beta2 · exp_avg + (1 − beta2) grad
/// ```
///
/// The sign of 0 is 0.
///
/// # Shapes
/// All tensors have the same, and all but `grad` are contiguous.
///
/// # Errors
/// [`ShapeMismatch`](crate::Error::ShapeMismatch), [`DTypeMismatch`](crate::Error::DTypeMismatch), candle's
/// `RequiresContiguous`, [`InvalidArgument`](crate::Error::InvalidArgument) for a constant outside its range; nothing has
/// moved then.
///
/// # Source
/// Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2; proved by the golden file `optimizers` of
/// `kestrel-train` against the same lines in PyTorch.
pub fn lion_step(param: &Var, grad: &Tensor, exp_avg: &Tensor, config: &LionConfig) -> Result<()> {
    check::tensors(OP, param, ("lion_step grad", grad), &[("lion_step exp_avg", exp_avg)])?;
    check::constants(
        OP,
        &[
            ("lr", config.lr, Range::NotNegative),
            ("beta1", config.beta1, Range::BelowOne),
            ("beta2", config.beta2, Range::BelowOne),
            ("weight_decay", config.weight_decay, Range::NotNegative),
        ],
    )?;
    let grad = grad.detach();
    if !param.device().is_cpu() {
        return Ok(composite(param, &grad, exp_avg, config)?);
    }
    Ok(dispatch!(OP, param.dtype(), T => {
        let LionConfig { lr, beta1, beta2, weight_decay } = *config;
        let (keep, lr) = (T::narrow(1.0 - lr * weight_decay), T::narrow(lr));
        let (beta1, share1) = (T::narrow(beta1), T::narrow(1.0 - beta1));
        let (beta2, share2) = (T::narrow(beta2), T::narrow(1.0 - beta2));
        pass::<T, 2>(OP, [param.as_tensor(), exp_avg], &grad, move |[p, m], g| {
            let c = beta1 * m + share1 * g;
            [p * keep - lr * sign(c), beta2 * m + share2 * g]
        })
    })?)
}

/// −1, 0 or 1; NaN of NaN.
#[inline(always)]
fn sign<T: Element>(value: T) -> T {
    if value > T::ZERO {
        T::ONE
    } else if value < T::ZERO {
        T::ZERO - T::ONE
    } else {
        // 0, or NaN.
        value
    }
}

/// The same step from candle's own ops.
fn composite(param: &Var, grad: &Tensor, exp_avg: &Tensor, config: &LionConfig) -> candle_core::Result<()> {
    let mix = |beta: f64| (exp_avg.detach() * beta)? + (grad * (1.0 - beta))?;
    let direction = mix(config.beta1)?;
    // candle's sign takes -0 and NaN for 1.
    let positive = direction.gt(&direction.zeros_like()?)?.to_dtype(direction.dtype())?;
    let negative = direction.lt(&direction.zeros_like()?)?.to_dtype(direction.dtype())?;
    let momentum = mix(config.beta2)?;
    let kept = (param.as_detached_tensor() * (1.0 - config.lr * config.weight_decay))?;
    let moved = (kept - ((positive - negative)? * config.lr)?)?;
    exp_avg.flatten_all()?.slice_set(&momentum.flatten_all()?, 0, 0)?;
    param.set(&moved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::check::tests::{distance, gradients, start};

    #[test]
    fn composite_agrees_with_the_kernel() -> candle_core::Result<()> {
        let config = LionConfig {
            lr: 0.01,
            weight_decay: 0.1,
            ..LionConfig::default()
        };
        let (fast, slow) = (start()?, start()?);
        let (a, b) = (fast.zeros_like()?, fast.zeros_like()?);
        for grad in gradients()? {
            lion_step(&fast, &grad, &a, &config)?;
            composite(&slow, &grad, &b, &config)?;
        }
        assert!(distance(&fast, &slow)? < 1e-14 && distance(&a, &b)? < 1e-14);
        assert!(distance(&fast, start()?.as_tensor())? > 1e-3);
        Ok(())
    }

    #[test]
    fn a_decay_of_one_is_refused() -> candle_core::Result<()> {
        let param = start()?;
        let zeros = param.zeros_like()?;
        let [beta1, beta2] = [(1.0, 0.5), (0.5, 1.0)].map(|(beta1, beta2)| LionConfig {
            beta1,
            beta2,
            ..LionConfig::default()
        });
        for (config, name) in [(beta1, "beta1"), (beta2, "beta2")] {
            let error = lion_step(&param, &zeros, &param.zeros_like()?, &config).map_err(|error| error.to_string());
            let expected = format!("lion_step: {name} must be at least 0 and below 1, got 1");
            assert_eq!(error, Err(expected));
        }
        Ok(())
    }

    #[test]
    fn without_a_gradient_only_the_decay_moves() -> candle_core::Result<()> {
        let param = start()?;
        let zeros = param.zeros_like()?;
        let config = LionConfig {
            lr: 0.5,
            weight_decay: 0.5,
            ..LionConfig::default()
        };
        lion_step(&param, &zeros, &param.zeros_like()?, &config)?;
        assert!(distance(&param, &(start()?.as_tensor() * 0.75)?)? < 1e-15);
        Ok(())
    }
}
