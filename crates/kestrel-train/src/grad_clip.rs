//! Clipping of gradients before the optimiser's step.

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use kestrel_kernels::update::{self, squared_norm};

use crate::optim::NamedVars;
use crate::{Error, Result};

/// Which clipping is done before each step; both may be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GradClip {
    /// Each element of a gradient is cut to `[-max_value, max_value]`, first.
    pub max_value: Option<f64>,
    /// All gradients together are scaled down to this Euclidean norm.
    pub max_norm: Option<f64>,
}

impl GradClip {
    /// The same, if every option is in its range.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for a bound that is not a finite number above 0.
    pub fn checked(self) -> Result<Self> {
        for (field, value) in [("max_value", self.max_value), ("max_norm", self.max_norm)] {
            if let Some(value) = value
                && !(value > 0.0 && value.is_finite())
            {
                return Err(Error::InvalidConfig {
                    field,
                    expected: "a finite number above 0",
                    got: value.to_string(),
                });
            }
        }
        Ok(self)
    }

    /// Clips the gradients of `params`, whose [`grad_norm`] is `norm`.
    ///
    /// # Errors
    /// Where a device fails.
    pub fn apply(self, grads: &mut GradStore, params: &NamedVars, mut norm: f64) -> Result<()> {
        if let Some(max_value) = self.max_value {
            clip_grad_value(grads, params, max_value)?;
        }
        if let Some(max_norm) = self.max_norm {
            if self.max_value.is_some() {
                norm = grad_norm(grads, params)?;
            }
            scale_to_norm(grads, params, norm, max_norm)?;
        }
        Ok(())
    }
}

impl GradClip {
    /// [`apply`](Self::apply) with a `norm` (`[]` of `f64`) that stays on its device, where nobody waits for it.
    ///
    /// # Errors
    /// Where a device fails.
    pub(crate) fn apply_on_device(self, grads: &mut GradStore, params: &NamedVars, norm: &Tensor) -> Result<()> {
        if let Some(max_value) = self.max_value {
            clip_grad_value(grads, params, max_value)?;
        }
        let Some(max_norm) = self.max_norm else {
            return Ok(());
        };
        let clipped;
        let norm = match self.max_value {
            Some(_) => match squared_norms(grads, params)? {
                Some((_, squares)) => {
                    clipped = total_norm(&squares)?;
                    &clipped
                }
                None => norm,
            },
            None => norm,
        };
        let max_norm = Tensor::full(max_norm, (), norm.device())?;
        let coefficient = max_norm.div(&(norm + 1e-6)?)?.minimum(1.0)?;
        replace(grads, params, |grad| {
            grad.broadcast_mul(&coefficient.to_dtype(grad.dtype())?)
        })
    }
}

/// The parameters that have a gradient, and the squared norm of each as numbers on their device (`[P]` of `f64`); none of none.
pub(crate) fn squared_norms(grads: &GradStore, params: &NamedVars) -> Result<Option<(Vec<String>, Tensor)>> {
    let (mut names, mut found) = (Vec::with_capacity(params.len()), Vec::with_capacity(params.len()));
    for (name, var) in params {
        if let Some(grad) = grads.get(var) {
            names.push(name.clone());
            found.push(grad.clone());
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    Ok(Some((names, update::squared_norms(&found)?)))
}

/// The root of the sum of squares (`[P]` of `f64`), on their device; on the CPU added up in their order, as [`grad_norm`] does.
pub(crate) fn total_norm(squares: &Tensor) -> Result<Tensor> {
    if squares.device().is_cpu() {
        let sum: f64 = squares.to_vec1::<f64>()?.iter().sum();
        return Ok(Tensor::new(sum.sqrt(), squares.device())?);
    }
    Ok(squares.sum_all()?.sqrt()?)
}

/// The Euclidean norm of all gradients of `params` together, the sum of squares kept in `f64`; not finite if one of their
/// elements is not.
///
/// # Errors
/// Where a device fails.
pub fn grad_norm(grads: &GradStore, params: &NamedVars) -> Result<f64> {
    let mut sum = 0.0;
    // A number that is read back waits for the device, so there it is one number.
    let mut on_device = Vec::new();
    for grad in params.iter().filter_map(|(_, var)| grads.get(var)) {
        if grad.device().is_cpu() {
            sum += squared_norm(grad)?;
        } else {
            on_device.push(grad.clone());
        }
    }
    if !on_device.is_empty() {
        sum += update::squared_norms(&on_device)?.sum_all()?.to_scalar::<f64>()?;
    }
    Ok(sum.sqrt())
}

/// Scales the gradients of `params` by `max_norm / (norm + 1e-6)`, if that is below 1, and returns their norm before.
///
/// # Errors
/// Where a device fails.
///
/// # Source
/// `torch.nn.utils.clip_grad_norm_`, the sum of squares kept in `f64`; the golden file `grad_clip`.
pub fn clip_grad_norm(grads: &mut GradStore, params: &NamedVars, max_norm: f64) -> Result<f64> {
    let norm = grad_norm(grads, params)?;
    scale_to_norm(grads, params, norm, max_norm)?;
    Ok(norm)
}

fn scale_to_norm(grads: &mut GradStore, params: &NamedVars, norm: f64, max_norm: f64) -> Result<()> {
    let coefficient = max_norm / (norm + 1e-6);
    if coefficient < 1.0 {
        replace(grads, params, |grad| grad * coefficient)?;
    }
    Ok(())
}

/// Cuts each element of the gradients of `params` to `[-max_value, max_value]`.
///
/// # Errors
/// Where a device fails.
///
/// # Source
/// `torch.nn.utils.clip_grad_value_`; the golden file `grad_clip`.
pub fn clip_grad_value(grads: &mut GradStore, params: &NamedVars, max_value: f64) -> Result<()> {
    replace(grads, params, |grad| grad.clamp(-max_value, max_value))
}

/// Sets each gradient to another tensor: in place it could reach another parameter's, for they may share storage.
pub(crate) fn replace(
    grads: &mut GradStore,
    params: &NamedVars,
    f: impl Fn(&candle_core::Tensor) -> candle_core::Result<candle_core::Tensor>,
) -> Result<()> {
    for (_, var) in params {
        if let Some(grad) = grads.get(var) {
            let grad = f(&grad.detach())?;
            grads.insert(var, grad);
        }
    }
    Ok(())
}
