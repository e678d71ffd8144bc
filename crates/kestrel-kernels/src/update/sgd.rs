//! Stochastic gradient descent with momentum, in PyTorch's order of operations.

use crate::element::{self, Element, dispatch};
use crate::{Error, Result};
use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Tensor, Var};
use rayon::prelude::*;
use std::sync::Mutex;

/// Elements of a piece of work.
const BLOCK: usize = 1 << 13;

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
    element::require_float("sgd_step param", param)?;
    let momentum_buffer = momentum_buffer.filter(|_| config.momentum != 0.0);
    let buffer = momentum_buffer.map(|buffer| ("sgd_step momentum_buffer", buffer));
    for (op, tensor) in [("sgd_step grad", grad)].into_iter().chain(buffer) {
        element::require_same_dtype(op, tensor, param)?;
        element::require_shape(op, tensor, param.dims())?;
    }
    for tensor in [param.as_tensor()].into_iter().chain(momentum_buffer) {
        element::require_contiguous("sgd_step", tensor)?;
    }
    check(step, momentum_buffer.is_some(), config)?;
    let grad = grad.detach();
    if !param.device().is_cpu() {
        return Ok(composite(param, &grad, momentum_buffer, step, config)?);
    }
    let grad = grad.contiguous()?;
    let update = Update {
        first: step == 1,
        config: *config,
    };
    match momentum_buffer {
        None => Ok(param.inplace_op2(&grad, &WithoutMomentum(update))?),
        Some(buffer) => {
            // The step below holds all three at once, and would wait for itself.
            for (one, other) in [(buffer, param.as_tensor()), (buffer, &grad), (param.as_tensor(), &grad)] {
                if storage_address(one) == storage_address(other) {
                    return Err(candle_core::Error::msg(
                        "sgd_step: param, grad and momentum_buffer share their storage",
                    )
                    .into());
                }
            }
            Ok(buffer.inplace_op1(&WithMomentum { update, param, grad })?)
        }
    }
}

fn check(step: u64, has_buffer: bool, config: &SgdConfig) -> Result<()> {
    let refuse = |argument, expected, got| {
        Err(Error::InvalidArgument {
            op: "sgd_step",
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

/// Where a tensor's storage lies; views of one storage share it.
fn storage_address(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.storage_and_layout();
    std::ptr::from_ref(&*storage).addr()
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

/// A step on slices.
#[derive(Clone, Copy)]
pub(crate) struct Update {
    /// Whether the momentum buffer holds nothing yet.
    pub(crate) first: bool,
    pub(crate) config: SgdConfig,
}

impl Update {
    /// Moves the parameter by its gradient alone.
    pub(crate) fn without_momentum<T: Element>(&self, param: &mut [T], grad: &[T]) {
        assert_eq!(param.len(), grad.len(), "a gradient for each parameter");
        let (lr, decayed) = (T::narrow(self.config.lr), self.decay());
        param
            .par_chunks_mut(BLOCK)
            .zip(grad.par_chunks(BLOCK))
            .for_each(|(param, grad)| {
                for (param, grad) in param.iter_mut().zip(grad) {
                    *param -= lr * decayed(*grad, *param);
                }
            });
    }

    /// Moves the momentum buffer and the parameter, in one pass over the three.
    pub(crate) fn with_momentum<T: Element>(&self, param: &mut [T], grad: &[T], buffer: &mut [T]) {
        assert_eq!(
            [grad.len(), buffer.len()],
            [param.len(); 2],
            "a gradient and a momentum for each parameter"
        );
        match (self.first, self.config.nesterov) {
            (false, false) => self.pass::<T, false, false>(param, grad, buffer),
            (false, true) => self.pass::<T, false, true>(param, grad, buffer),
            (true, false) => self.pass::<T, true, false>(param, grad, buffer),
            (true, true) => self.pass::<T, true, true>(param, grad, buffer),
        }
    }

    /// [`with_momentum`](Self::with_momentum), with its choices known to the compiler: it does not vectorise a loop that
    /// makes them.
    fn pass<T: Element, const FIRST: bool, const NESTEROV: bool>(&self, param: &mut [T], grad: &[T], buffer: &mut [T]) {
        let (lr, decayed) = (T::narrow(self.config.lr), self.decay());
        let (momentum, share) = (T::narrow(self.config.momentum), T::narrow(1.0 - self.config.dampening));
        param
            .par_chunks_mut(BLOCK)
            .zip(grad.par_chunks(BLOCK))
            .zip(buffer.par_chunks_mut(BLOCK))
            .for_each(|((param, grad), buffer)| {
                for ((param, grad), buffer) in param.iter_mut().zip(grad).zip(buffer) {
                    let grad = decayed(*grad, *param);
                    let moved = if FIRST { grad } else { *buffer * momentum + share * grad };
                    let direction = if NESTEROV { grad + momentum * moved } else { moved };
                    *buffer = moved;
                    *param -= lr * direction;
                }
            });
    }

    /// The gradient with the weight decay. PyTorch leaves the gradient alone without one, so that an infinite parameter
    /// makes no NaN.
    fn decay<T: Element>(&self) -> impl Fn(T, T) -> T + Copy + Send + Sync {
        let weight_decay = T::narrow(self.config.weight_decay);
        move |grad, param| {
            if weight_decay == T::ZERO {
                grad
            } else {
                grad + weight_decay * param
            }
        }
    }
}

/// The step as candle's op on the parameter.
struct WithoutMomentum(Update);

impl InplaceOp2 for WithoutMomentum {
    fn name(&self) -> &'static str {
        "sgd step"
    }

    fn cpu_fwd(
        &self,
        param: &mut CpuStorage,
        param_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> candle_core::Result<()> {
        dispatch!("sgd step", candle_core::backend::BackendStorage::dtype(param), T => {
            let grad = element::slice::<T>("sgd step", grad, grad_layout)?;
            self.0.without_momentum(element::slice_mut::<T>("sgd step", param, param_layout)?, grad);
            Ok(())
        })
    }
}

/// The step as candle's op on the momentum buffer, from which it goes on to the parameter: candle hands an op one storage
/// to write, and a pass for each would read the buffer and the gradient twice.
struct WithMomentum<'a> {
    update: Update,
    param: &'a Var,
    grad: Tensor,
}

impl InplaceOp1 for WithMomentum<'_> {
    fn name(&self) -> &'static str {
        "sgd step"
    }

    fn cpu_fwd(&self, buffer: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        dispatch!("sgd step", candle_core::backend::BackendStorage::dtype(buffer), T => {
            let buffer = Mutex::new(element::slice_mut::<T>("sgd step", buffer, layout)?);
            self.param.inplace_op2(&self.grad, &IntoBuffer { update: self.update, buffer })
        })
    }
}

/// The rest of [`WithMomentum`], on the parameter.
struct IntoBuffer<'a, T> {
    update: Update,
    /// Locked once; the lock is there because an op only borrows itself.
    buffer: Mutex<&'a mut [T]>,
}

impl<T: Element> InplaceOp2 for IntoBuffer<'_, T> {
    fn name(&self) -> &'static str {
        "sgd step"
    }

    fn cpu_fwd(
        &self,
        param: &mut CpuStorage,
        param_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> candle_core::Result<()> {
        let grad = element::slice::<T>("sgd step", grad, grad_layout)?;
        let param = element::slice_mut::<T>("sgd step", param, param_layout)?;
        let mut buffer = self.buffer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.update.with_momentum(param, grad, &mut buffer);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
