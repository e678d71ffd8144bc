//! Stochastic gradient descent with momentum, in PyTorch's order of operations.

use candle_core::{Tensor, Var};

use super::check;
use super::fused::pass;
use super::gate::is_shut;
use crate::element::{Element, dispatch};
use crate::{Error, Result};

const OP: &str = "sgd_step";

/// Constants of a step of SGD.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdConfig {
    /// Learning rate, at least 0.
    pub lr: f64,
    /// Share of the momentum buffer that is kept, at least 0; 0 is SGD without momentum.
    pub momentum: f64,
    /// Share of the gradient that does not enter the momentum buffer.
    pub dampening: f64,
    /// Coupled L2, at least 0: `weight_decay · param` is added to the gradient.
    pub weight_decay: f64,
    /// Whether to look ahead along the momentum; needs a momentum and no dampening.
    pub nesterov: bool,
}

impl Default for SgdConfig {
    /// PyTorch's defaults.
    fn default() -> Self {
        Self {
            lr: 1e-3,
            momentum: 0.0,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
        }
    }
}

/// One step of SGD on `param`, with the momentum buffer moved in place; `step` counts from 1.
///
/// ```text
/// g       = grad + weight_decay · param
/// buffer  = g at the first step, then momentum · buffer + (1 − dampening) g
/// param  −= lr · (g + momentum · buffer with nesterov, else buffer; g without momentum)
/// ```
///
/// The first step writes the buffer without reading it. Without momentum there need be no buffer, and one is left alone.
///
/// # Shapes
/// All tensors have the same, and all but `grad` are contiguous.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], candle's `RequiresContiguous`, [`Error::InvalidArgument`] for a step
/// of 0, a constant outside its range, or a momentum without a buffer; nothing has moved then.
///
/// # Source
/// `torch.optim.SGD`; proved by `tests/golden/sgd.safetensors`.
pub fn sgd_step(
    param: &Var,
    grad: &Tensor,
    momentum_buffer: Option<&Tensor>,
    step: u64,
    config: &SgdConfig,
) -> Result<()> {
    let slot = SgdSlot {
        param,
        grad,
        momentum_buffer,
    };
    sgd_step_all(&[slot], step, config, None)
}

/// The step of a slot that has been checked.
fn step_one(slot: &SgdSlot<'_>, step: u64, config: &SgdConfig) -> Result<()> {
    let (param, grad) = (slot.param, slot.grad.detach());
    let momentum_buffer = slot.buffer(config);
    if !param.device().is_cpu() {
        return Ok(composite(param, &grad, momentum_buffer, step, config)?);
    }
    Ok(dispatch!(OP, param.dtype(), T => {
        let rule = Rule::<T>::new(config);
        let param = param.as_tensor();
        match (momentum_buffer, step == 1, config.nesterov) {
            (None, ..) => pass::<T, 1>(OP, [param], &grad, move |[p], g| [p - rule.lr * rule.decayed(p, g)]),
            (Some(b), false, false) => pass(OP, [param, b], &grad, move |[p, b], g| rule.step::<false, false>(p, b, g)),
            (Some(b), false, true) => pass(OP, [param, b], &grad, move |[p, b], g| rule.step::<false, true>(p, b, g)),
            (Some(b), true, false) => pass(OP, [param, b], &grad, move |[p, b], g| rule.step::<true, false>(p, b, g)),
            (Some(b), true, true) => pass(OP, [param, b], &grad, move |[p, b], g| rule.step::<true, true>(p, b, g)),
        }
    })?)
}

/// A parameter of [`sgd_step_all`], with its gradient and its momentum buffer.
#[derive(Clone, Copy, Debug)]
pub struct SgdSlot<'a> {
    /// What is moved.
    pub param: &'a Var,
    /// Its gradient.
    pub grad: &'a Tensor,
    /// Moved; need not be there without momentum.
    pub momentum_buffer: Option<&'a Tensor>,
}

impl<'a> SgdSlot<'a> {
    /// The buffer, if it is moved.
    fn buffer(&self, config: &SgdConfig) -> Option<&'a Tensor> {
        self.momentum_buffer.filter(|_| config.momentum != 0.0)
    }
}

/// [`sgd_step`] on many parameters, in one launch for each few dozen of them where they are `f32` on a GPU; `gate` is that of
/// [`adam_step_all`](super::adam_step_all).
///
/// # Errors
/// Those of [`sgd_step`]; nothing has moved then, unless candle fails.
pub fn sgd_step_all(slots: &[SgdSlot<'_>], step: u64, config: &SgdConfig, gate: Option<&Tensor>) -> Result<()> {
    for slot in slots {
        let buffer = slot.buffer(config);
        let named = buffer.map(|buffer| ("sgd_step momentum_buffer", buffer));
        check::tensors(OP, slot.param, ("sgd_step grad", slot.grad), named.as_slice())?;
        constants(step, buffer.is_some(), config)?;
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
                state: [slot.buffer(config), None],
            })
            .collect();
        let rule = Rule::<f32>::new(config);
        let constants = crate::cuda::SgdConstants {
            lr: rule.lr,
            momentum: rule.momentum,
            share: rule.share,
            weight_decay: rule.weight_decay,
            nesterov: config.nesterov,
            has_buffer: config.momentum != 0.0,
            started: step > 1,
        };
        return Ok(crate::cuda::sgd(&moved, &constants, gate)?);
    }
    if let Some(gate) = gate
        && is_shut(gate)?
    {
        return Ok(());
    }
    slots.iter().try_for_each(|slot| step_one(slot, step, config))
}

fn constants(step: u64, has_buffer: bool, config: &SgdConfig) -> Result<()> {
    let refuse = |argument, expected, got| {
        Err(Error::InvalidArgument {
            op: OP,
            argument,
            expected,
            got,
        })
    };
    if step == 0 {
        return refuse("step", "at least 1", 0.0);
    }
    for (argument, value) in [
        ("lr", config.lr),
        ("momentum", config.momentum),
        ("weight_decay", config.weight_decay),
    ] {
        if !(0.0..).contains(&value) {
            return refuse(argument, "at least 0", value);
        }
    }
    if config.momentum != 0.0 && !has_buffer {
        return refuse("momentum", "0 without a momentum buffer", config.momentum);
    }
    if config.nesterov && config.momentum == 0.0 {
        return refuse("momentum", "more than 0 with nesterov", config.momentum);
    }
    if config.nesterov && config.dampening != 0.0 {
        return refuse("dampening", "0 with nesterov", config.dampening);
    }
    Ok(())
}

/// The same step from candle's own ops.
fn composite(
    param: &Var,
    grad: &Tensor,
    momentum_buffer: Option<&Tensor>,
    step: u64,
    config: &SgdConfig,
) -> candle_core::Result<()> {
    let param_now = param.as_detached_tensor();
    let grad = if config.weight_decay == 0.0 {
        grad.clone()
    } else {
        (grad + (&param_now * config.weight_decay)?)?
    };
    let direction = match momentum_buffer {
        None => grad,
        Some(buffer) => {
            let moved = if step == 1 {
                grad.copy()?
            } else {
                ((buffer.detach() * config.momentum)? + (&grad * (1.0 - config.dampening))?)?
            };
            buffer.flatten_all()?.slice_set(&moved.flatten_all()?, 0, 0)?;
            if config.nesterov {
                (grad + (moved * config.momentum)?)?
            } else {
                moved
            }
        }
    };
    param.set(&(param_now - (direction * config.lr)?)?)
}

/// The constants, rounded to the element type.
#[derive(Clone, Copy)]
struct Rule<T> {
    lr: T,
    momentum: T,
    share: T,
    weight_decay: T,
}

impl<T: Element> Rule<T> {
    fn new(config: &SgdConfig) -> Self {
        Self {
            lr: T::narrow(config.lr),
            momentum: T::narrow(config.momentum),
            share: T::narrow(1.0 - config.dampening),
            weight_decay: T::narrow(config.weight_decay),
        }
    }

    /// The gradient with the weight decay. PyTorch leaves the gradient alone without one, so that an infinite parameter
    /// makes no NaN.
    #[inline(always)]
    fn decayed(self, param: T, grad: T) -> T {
        if self.weight_decay == T::ZERO {
            grad
        } else {
            grad + self.weight_decay * param
        }
    }

    /// The parameter and the momentum after the step. Its choices are known to the compiler, which does not vectorise a
    /// loop that makes them.
    #[inline(always)]
    fn step<const FIRST: bool, const NESTEROV: bool>(self, param: T, buffer: T, grad: T) -> [T; 2] {
        let grad = self.decayed(param, grad);
        let moved = if FIRST {
            grad
        } else {
            buffer * self.momentum + self.share * grad
        };
        let direction = if NESTEROV { grad + self.momentum * moved } else { moved };
        [param - self.lr * direction, moved]
    }
}

#[cfg(test)]
mod tests;
