//! Clipping of gradients before the optimiser's step.

use candle_core::backprop::GradStore;
use kestrel_kernels::update::squared_norm;

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

    /// Clips the gradients of `params`.
    ///
    /// # Errors
    /// Where a device fails.
    pub fn apply(self, grads: &mut GradStore, params: &NamedVars) -> Result<()> {
        if let Some(max_value) = self.max_value {
            clip_grad_value(grads, params, max_value)?;
        }
        if let Some(max_norm) = self.max_norm {
            clip_grad_norm(grads, params, max_norm)?;
        }
        Ok(())
    }
}

/// Scales the gradients of `params` by `max_norm / (norm + 1e-6)`, if that is below 1, and returns their norm before.
///
/// # Errors
/// Where a device fails.
///
/// # Source
/// `torch.nn.utils.clip_grad_norm_`, the sum of squares kept in `f64`; the golden file `grad_clip`.
pub fn clip_grad_norm(grads: &mut GradStore, params: &NamedVars, max_norm: f64) -> Result<f64> {
    let mut sum = 0.0;
    for grad in params.iter().filter_map(|(_, var)| grads.get(var)) {
        sum += squared_norm(grad)?;
    }
    let norm = sum.sqrt();
    let coefficient = max_norm / (norm + 1e-6);
    if coefficient < 1.0 {
        replace(grads, params, |grad| grad * coefficient)?;
    }
    Ok(norm)
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
fn replace(
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
