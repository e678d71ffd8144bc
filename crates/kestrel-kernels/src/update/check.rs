//! What an update requires of its tensors and constants, checked before anything moves.

use candle_core::{Tensor, Var};

use crate::element;
use crate::{Error, Result};

/// A range of a constant; none holds NaN.
#[derive(Clone, Copy)]
pub(super) enum Range {
    NotNegative,
    /// `[0, 1)`.
    BelowOne,
    /// `[0, 1]`.
    Unit,
}

/// A tensor, and what an error calls it.
pub(super) type Named<'a> = (&'static str, &'a Tensor);

/// `moved` and `grad` have the parameter's shape and type; all but `grad` are contiguous.
pub(super) fn tensors(op: &'static str, param: &Var, grad: Named<'_>, moved: &[Named<'_>]) -> Result<()> {
    element::require_float(op, param)?;
    for (name, tensor) in [grad].iter().chain(moved) {
        element::require_same_dtype(name, tensor, param)?;
        element::require_shape(name, tensor, param.dims())?;
    }
    for (name, tensor) in [(op, param.as_tensor())].iter().chain(moved) {
        element::require_contiguous(name, tensor)?;
    }
    Ok(())
}

/// Whether the fused kernels take a tensor.
#[cfg(feature = "cuda")]
pub(super) fn on_gpu(tensor: &Tensor) -> bool {
    tensor.device().is_cuda() && tensor.dtype() == candle_core::DType::F32
}

/// Errors unless both are on one device, and of one element type.
#[cfg(feature = "cuda")]
pub(super) fn same_device(op: &'static str, tensor: &Tensor, first: &Tensor) -> Result<()> {
    element::require_same_dtype(op, tensor, first)?;
    if tensor.device().same_device(first.device()) {
        return Ok(());
    }
    Err(candle_core::Error::Msg(format!("{op}: parameters on two devices")).into())
}

/// Each constant lies in its range.
pub(super) fn constants(op: &'static str, constants: &[(&'static str, f64, Range)]) -> Result<()> {
    for &(argument, got, range) in constants {
        let (holds, expected) = match range {
            Range::NotNegative => (got >= 0.0, "at least 0"),
            Range::BelowOne => ((0.0..1.0).contains(&got), "at least 0 and below 1"),
            Range::Unit => ((0.0..=1.0).contains(&got), "between 0 and 1"),
        };
        if !holds {
            return Err(Error::InvalidArgument {
                op,
                argument,
                expected,
                got,
            });
        }
    }
    Ok(())
}

/// The fault of a state tensor that the configuration needs and that is not there.
pub(super) fn missing(op: &'static str, argument: &'static str) -> Error {
    Error::InvalidArgument {
        op,
        argument,
        expected: "given with this configuration",
        got: f64::NAN,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use candle_core::{Device, Result, Tensor, Var};

    /// A parameter to move.
    pub(in crate::update) fn start() -> Result<Var> {
        let values: Vec<f64> = (0..15).map(|i| (f64::from(i) * 1.7).sin()).collect();
        Var::from_vec(values, (3, 5), &Device::Cpu)
    }

    /// The gradients of three steps.
    pub(in crate::update) fn gradients() -> Result<Vec<Tensor>> {
        (1..=3)
            .map(|step| (start()?.as_detached_tensor() * f64::from(step))?.cos())
            .collect()
    }

    pub(in crate::update) fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
        (a - b)?.abs()?.max_all()?.to_scalar()
    }
}
