//! Adam with coupled or decoupled weight decay, in PyTorch's order of operations.

use candle_core::{Tensor, Var};

use super::check::{self, Range};
use super::fused::pass;
use super::gate::is_shut;
use crate::element::{Element, dispatch};
use crate::{Error, Result};

const OP: &str = "adam_step";

/// Constants of a step of Adam.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamConfig {
    /// Learning rate, at least 0.
    pub lr: f64,
    /// Decay of the first moment, in `[0, 1)`.
    pub beta1: f64,
    /// Decay of the second moment, in `[0, 1)`.
    pub beta2: f64,
    /// Added to the root of the second moment, at least 0.
    pub eps: f64,
    /// At least 0. Coupled L2: `weight_decay · param` is added to the gradient. Decoupled: the parameter shrinks by
    /// `lr · weight_decay` of itself before the step.
    pub weight_decay: f64,
    /// Whether the weight decay is decoupled from the moments, which makes this AdamW.
    pub decoupled: bool,
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            decoupled: false,
        }
    }
}

impl AdamConfig {
    /// The weight decay that is added to the gradient.
    fn coupled(&self) -> f64 {
        if self.decoupled { 0.0 } else { self.weight_decay }
    }
}

/// One step of Adam on `param`, with the moments moved in place; `step` counts from 1.
///
/// ```text
/// g = grad + weight_decay · param, or grad if decoupled
/// exp_avg    += (1 − beta1) (g − exp_avg)
/// exp_avg_sq  = beta2 · exp_avg_sq + (1 − beta2) g²
/// param      *= 1 − lr · weight_decay                                 (decoupled)
/// param      −= lr / (1 − beta1^step) · exp_avg / (√exp_avg_sq / √(1 − beta2^step) + eps)
/// ```
///
/// # Shapes
/// All four tensors have the same, and all but `grad` are contiguous.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::InvalidArgument`] for a step of 0 or a constant
/// outside its range, candle's `RequiresContiguous`; nothing has moved then.
///
/// # Source
/// Kingma and Ba 2015, algorithm 1; `torch.optim.Adam`, proved by `tests/golden/adam.safetensors`. Decoupled: Loshchilov
/// and Hutter 2019, algorithm 2; `torch.optim.AdamW`, proved by the golden file `optimizers` of `kestrel-train`.
pub fn adam_step(
    param: &Var,
    grad: &Tensor,
    exp_avg: &Tensor,
    exp_avg_sq: &Tensor,
    step: u64,
    config: &AdamConfig,
) -> Result<()> {
    let slot = AdamSlot {
        param,
        grad,
        exp_avg,
        exp_avg_sq,
    };
    adam_step_all(&[slot], step, config, None)
}

/// The step of a slot that has been checked.
fn step_one(slot: &AdamSlot<'_>, step: u64, config: &AdamConfig) -> Result<()> {
    let AdamSlot {
        param,
        exp_avg,
        exp_avg_sq,
        ..
    } = *slot;
    let grad = slot.grad.detach();
    if !param.device().is_cpu() {
        return Ok(composite(param, &grad, exp_avg, exp_avg_sq, step, config)?);
    }
    Ok(dispatch!(OP, param.dtype(), T => {
        // The closure owns its constants: behind a reference, each would be read again after every element written.
        let rule = Rule::<T>::new(step, config);
        pass::<T, 3>(OP, [param.as_tensor(), exp_avg, exp_avg_sq], &grad, move |[p, m, v], g| rule.step(p, m, v, g))
    })?)
}

/// A parameter of [`adam_step_all`], with its gradient and its moments.
#[derive(Clone, Copy, Debug)]
pub struct AdamSlot<'a> {
    /// What is moved.
    pub param: &'a Var,
    /// Its gradient.
    pub grad: &'a Tensor,
    /// First moment, moved.
    pub exp_avg: &'a Tensor,
    /// Second moment, moved.
    pub exp_avg_sq: &'a Tensor,
}

/// [`adam_step`] on many parameters, in one launch for each few dozen of them where they are `f32` on a GPU.
///
/// `gate`, a scalar `f32` on the parameters' device: where it is 0 the step is left out, and nothing moves. A GPU reads it when
/// it comes to the step, without the host's waiting.
///
/// # Errors
/// Those of [`adam_step`]; nothing has moved then, unless candle fails.
pub fn adam_step_all(slots: &[AdamSlot<'_>], step: u64, config: &AdamConfig, gate: Option<&Tensor>) -> Result<()> {
    constants(step, config)?;
    for slot in slots {
        let state = [
            ("adam_step exp_avg", slot.exp_avg),
            ("adam_step exp_avg_sq", slot.exp_avg_sq),
        ];
        check::tensors(OP, slot.param, ("adam_step grad", slot.grad), &state)?;
    }
    #[cfg(feature = "cuda")]
    if slots.first().is_some_and(|slot| check::on_gpu(slot.param)) {
        let mut grads = Vec::with_capacity(slots.len());
        for slot in slots {
            check::same_device(OP, slot.param, slots[0].param)?;
            grads.push(slot.grad.contiguous()?);
        }
        let moved: Vec<_> = slots
            .iter()
            .zip(&grads)
            .map(|(slot, grad)| crate::cuda::Moved {
                param: slot.param,
                grad,
                state: [Some(slot.exp_avg), Some(slot.exp_avg_sq)],
            })
            .collect();
        let rule = Rule::<f32>::new(step, config);
        let constants = crate::cuda::AdamConstants {
            weight_decay: rule.weight_decay,
            share1: rule.share1,
            beta2: rule.beta2,
            share2: rule.share2,
            step_size: rule.step_size,
            sqrt_correction2: rule.sqrt_correction2,
            eps: rule.eps,
            keep: rule.keep,
        };
        return Ok(crate::cuda::adam(&moved, &constants, gate)?);
    }
    if let Some(gate) = gate
        && is_shut(gate)?
    {
        return Ok(());
    }
    slots.iter().try_for_each(|slot| step_one(slot, step, config))
}

fn constants(step: u64, config: &AdamConfig) -> Result<()> {
    check::constants(
        OP,
        &[
            ("lr", config.lr, Range::NotNegative),
            ("beta1", config.beta1, Range::BelowOne),
            ("beta2", config.beta2, Range::BelowOne),
            ("eps", config.eps, Range::NotNegative),
            ("weight_decay", config.weight_decay, Range::NotNegative),
        ],
    )?;
    if step == 0 {
        return Err(Error::InvalidArgument {
            op: OP,
            argument: "step",
            expected: "at least 1",
            got: 0.0,
        });
    }
    Ok(())
}

/// The same step from candle's own ops.
fn composite(
    param: &Var,
    grad: &Tensor,
    exp_avg: &Tensor,
    exp_avg_sq: &Tensor,
    step: u64,
    config: &AdamConfig,
) -> candle_core::Result<()> {
    let param_now = param.as_detached_tensor();
    let grad = if config.coupled() == 0.0 {
        grad.clone()
    } else {
        (grad + (&param_now * config.coupled())?)?
    };
    let first = (exp_avg.detach() + ((&grad - exp_avg.detach())? * (1.0 - config.beta1))?)?;
    let second = ((exp_avg_sq.detach() * config.beta2)? + (grad.sqr()? * (1.0 - config.beta2))?)?;
    let Apply {
        step_size,
        sqrt_correction2,
        eps,
        keep,
    } = Apply::new(step, config);
    let denom = ((second.sqrt()? / sqrt_correction2)? + eps)?;
    let moved = ((param_now * keep)? - ((&first * step_size)? / denom)?)?;
    for (to, from) in [(exp_avg, first), (exp_avg_sq, second)] {
        to.flatten_all()?.slice_set(&from.flatten_all()?, 0, 0)?;
    }
    param.set(&moved)
}

/// What the constants make of the step, in `f64`.
struct Apply {
    step_size: f64,
    sqrt_correction2: f64,
    eps: f64,
    /// What is left of the parameter after decoupled decay.
    keep: f64,
}

impl Apply {
    fn new(step: u64, config: &AdamConfig) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        Self {
            step_size: config.lr / correction(config.beta1),
            sqrt_correction2: correction(config.beta2).sqrt(),
            eps: config.eps,
            keep: if config.decoupled {
                1.0 - config.lr * config.weight_decay
            } else {
                1.0
            },
        }
    }
}

/// The constants of an element's step, rounded to its type.
#[derive(Clone, Copy)]
struct Rule<T> {
    weight_decay: T,
    share1: T,
    beta2: T,
    share2: T,
    step_size: T,
    sqrt_correction2: T,
    eps: T,
    keep: T,
}

impl<T: Element> Rule<T> {
    fn new(step: u64, config: &AdamConfig) -> Self {
        let apply = Apply::new(step, config);
        Self {
            weight_decay: T::narrow(config.coupled()),
            share1: T::narrow(1.0 - config.beta1),
            beta2: T::narrow(config.beta2),
            share2: T::narrow(1.0 - config.beta2),
            step_size: T::narrow(apply.step_size),
            sqrt_correction2: T::narrow(apply.sqrt_correction2),
            eps: T::narrow(apply.eps),
            keep: T::narrow(apply.keep),
        }
    }

    #[inline(always)]
    fn step(self, param: T, exp_avg: T, exp_avg_sq: T, grad: T) -> [T; 3] {
        // PyTorch leaves the gradient alone without weight decay, so that an infinite parameter makes no NaN.
        let g = if self.weight_decay == T::ZERO {
            grad
        } else {
            grad + self.weight_decay * param
        };
        let m = exp_avg + self.share1 * (g - exp_avg);
        let v = exp_avg_sq * self.beta2 + self.share2 * g * g;
        let moved = param * self.keep - self.step_size * m / (v.sqrt() / self.sqrt_correction2 + self.eps);
        [moved, m, v]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn composite_agrees_with_the_kernel() -> candle_core::Result<()> {
        for decoupled in [false, true] {
            compare(AdamConfig {
                weight_decay: 0.1,
                decoupled,
                ..AdamConfig::default()
            })?;
        }
        Ok(())
    }

    fn compare(config: AdamConfig) -> candle_core::Result<()> {
        let values: Vec<f64> = (0..15).map(|i| (f64::from(i) * 1.7).sin()).collect();
        let start = Tensor::from_vec(values, (3, 5), &Device::Cpu)?;
        let (fast, slow) = (Var::from_tensor(&start.copy()?)?, Var::from_tensor(&start.copy()?)?);
        let zeros = || Tensor::zeros((3, 5), DType::F64, &Device::Cpu);
        let (fast_m, fast_v, slow_m, slow_v) = (zeros()?, zeros()?, zeros()?, zeros()?);
        for step in 1..=3 {
            let grad = (&start * f64::from(step as u32))?.cos()?;
            adam_step(&fast, &grad, &fast_m, &fast_v, step, &config)?;
            composite(&slow, &grad, &slow_m, &slow_v, step, &config)?;
        }
        for (fast, slow) in [
            (fast.as_tensor(), slow.as_tensor()),
            (&fast_m, &slow_m),
            (&fast_v, &slow_v),
        ] {
            assert!((fast - slow)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-14);
        }
        let moved = (fast.as_tensor() - &start)?.abs()?.max_all()?.to_scalar::<f64>()?;
        assert!(moved > 1e-3, "{moved}");
        Ok(())
    }

    /// Vectors change no bit: each element goes through the equation by itself, in `f32`, without fused operations.
    #[test]
    fn every_bit_is_the_plain_loops() -> candle_core::Result<()> {
        let config = AdamConfig {
            weight_decay: 0.1,
            ..AdamConfig::default()
        };
        let len = (1 << 13) + 77;
        let values = |seed: f32| -> Vec<f32> { (0..len).map(|i| (i as f32 * seed).sin()).collect() };
        let (param, grad) = (values(1.7), values(0.3));
        let var = Var::new(&param[..], &Device::Cpu)?;
        let gradient = Tensor::new(&grad[..], &Device::Cpu)?;
        let [m, v] = [Tensor::zeros(len, DType::F32, &Device::Cpu)?, var.zeros_like()?];
        adam_step(&var, &gradient, &m, &v, 1, &config)?;
        let (step_size, eps) = ((config.lr / (1.0 - config.beta1)) as f32, config.eps as f32);
        let sqrt_correction2 = (1.0 - config.beta2).sqrt() as f32;
        for (i, got) in var.to_vec1::<f32>()?.into_iter().enumerate() {
            let g = grad[i] + 0.1 * param[i];
            let m = 0.0 + (1.0 - config.beta1) as f32 * (g - 0.0);
            let v = 0.0 * config.beta2 as f32 + (1.0 - config.beta2) as f32 * g * g;
            let want = param[i] - step_size * m / (v.sqrt() / sqrt_correction2 + eps);
            assert_eq!(got.to_bits(), want.to_bits(), "element {i}: {got} and {want}");
        }
        Ok(())
    }
}
