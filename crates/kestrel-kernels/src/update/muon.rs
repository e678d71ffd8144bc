//! Muon: momentum whose matrix is brought near to an orthogonal one.

use candle_core::{Tensor, Var};

use super::average::average_step;
use super::check::{self, Range};
use super::fused::pass;
use super::newton_schulz::newton_schulz;
use crate::element::{Element, dispatch};
use crate::{Error, Result};

const OP: &str = "muon_step";

/// Constants of a step of Muon; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MuonConfig {
    /// Learning rate, at least 0.
    pub lr: f64,
    /// Decoupled: the parameter shrinks by `lr · weight_decay` of itself a step.
    pub weight_decay: f64,
    /// Share of the momentum buffer that is kept, in `[0, 1]`.
    pub momentum: f64,
    /// Whether to look ahead along the momentum.
    pub nesterov: bool,
    /// Newton-Schulz iterations, below 100.
    pub ns_steps: u64,
    /// The least norm that the matrix is divided by.
    pub eps: f64,
    /// What the learning rate is multiplied by, by the matrix's shape.
    pub adjust_lr: AdjustLr,
}

/// How Muon's learning rate depends on a matrix's shape `[rows, cols]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdjustLr {
    /// `√max(1, rows / cols)`: Keller Jordan's.
    Original,
    /// `0.2 √max(rows, cols)`: the size of AdamW's steps, so that its rates serve.
    MatchRmsAdamw,
}

impl Default for MuonConfig {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            weight_decay: 0.1,
            momentum: 0.95,
            nesterov: true,
            ns_steps: 5,
            eps: 1e-7,
            adjust_lr: AdjustLr::Original,
        }
    }
}

/// One step of Muon on `param`, a matrix or a convolution's weight, with the momentum buffer moved in place.
///
/// ```text
/// buffer += (1 − momentum) (grad − buffer)
/// u       = grad + momentum (buffer − grad) with nesterov, else buffer
/// param   = param (1 − lr · weight_decay) − lr · adjust(rows, cols) · newton_schulz(u)
/// ```
///
/// A convolution's weight `[K, C, R, S]` is the matrix `[K, C R S]`.
///
/// # Shapes
/// `[rows, cols]` or `[K, C, R, S]`; all three tensors have the same, and all but `grad` are contiguous.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], candle's `RequiresContiguous`, [`Error::InvalidArgument`] for a constant
/// outside its range; nothing has moved then.
///
/// # Source
/// Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; `torch.optim.Muon`, but in the
/// parameter's type where PyTorch rounds the matrix to bfloat16; proved by the golden file `optimizers` of
/// `kestrel-train`.
pub fn muon_step(param: &Var, grad: &Tensor, momentum_buffer: &Tensor, config: &MuonConfig) -> Result<()> {
    let buffer = ("muon_step momentum_buffer", momentum_buffer);
    check::tensors(OP, param, ("muon_step grad", grad), &[buffer])?;
    check::constants(
        OP,
        &[
            ("lr", config.lr, Range::NotNegative),
            ("weight_decay", config.weight_decay, Range::NotNegative),
            ("momentum", config.momentum, Range::Unit),
            ("eps", config.eps, Range::NotNegative),
        ],
    )?;
    if config.ns_steps >= 100 {
        return Err(Error::InvalidArgument {
            op: OP,
            argument: "ns_steps",
            expected: "below 100",
            got: config.ns_steps as f64,
        });
    }
    let (rows, cols) = match *param.dims() {
        [rows, cols] if rows * cols > 0 => (rows, cols),
        [k, c, r, s] if k * c * r * s > 0 => (k, c * r * s),
        ref got => {
            return Err(Error::ShapeMismatch {
                op: OP,
                expected: "[rows, cols] or [K, C, R, S]".to_owned(),
                got: got.to_vec(),
            });
        }
    };
    let grad = grad.detach();
    average_step(momentum_buffer, &grad, 1.0 - config.momentum)?;
    let buffer = momentum_buffer.detach();
    let update = if config.nesterov {
        lerp(&grad, &buffer, config.momentum)?
    } else {
        buffer
    };
    let update = newton_schulz(&update.reshape((rows, cols))?, config.ns_steps, config.eps)?;
    let ratio = match config.adjust_lr {
        AdjustLr::Original => (rows as f64 / cols as f64).max(1.0).sqrt(),
        AdjustLr::MatchRmsAdamw => 0.2 * (rows.max(cols) as f64).sqrt(),
    };
    let (keep, lr) = (1.0 - config.lr * config.weight_decay, config.lr * ratio);
    let update = update.reshape(param.shape())?;
    if !param.device().is_cpu() {
        let kept = (param.as_detached_tensor() * keep)?;
        return Ok(param.set(&(kept - (update * lr)?)?)?);
    }
    Ok(dispatch!(OP, param.dtype(), T => {
        let (keep, lr) = (T::narrow(keep), T::narrow(lr));
        pass::<T, 1>(OP, [param.as_tensor()], &update, move |[p], u| [p * keep - u * lr])
    })?)
}

/// `torch.lerp`, from whichever end is nearer.
fn lerp(start: &Tensor, end: &Tensor, weight: f64) -> candle_core::Result<Tensor> {
    let way = (end - start)?;
    if weight < 0.5 {
        start + (way * weight)?
    } else {
        end - (way * (1.0 - weight))?
    }
}
