//! Mixed precision: in which type the products of a forward and its backward are made. Parameters, optimiser state and
//! whatever adds many numbers stay `f32`.

mod round;

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Tensor};

use crate::Result;
use crate::tape::Value;

/// The type in which convolutions and linear layers take and give numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// `f32`, as without autocast.
    #[default]
    F32,
    /// `bf16`: the range of `f32` with 8 bits of precision.
    Bf16,
    /// `f16`: 11 bits of precision, numbers up to 65504, and none but 0 below 6e-8; a loss is scaled for its gradients.
    F16,
}

impl Precision {
    /// candle's name of the type.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }

    /// The name in options and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no [`Precision`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no precision {got:?}; choose f32, bf16 or f16")]
pub struct UnknownPrecision {
    /// The name.
    pub got: String,
}

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> std::result::Result<Self, UnknownPrecision> {
        let all = [Self::F32, Self::Bf16, Self::F16];
        let found = all.into_iter().find(|precision| precision.name() == name);
        found.ok_or_else(|| UnknownPrecision { got: name.to_owned() })
    }
}

thread_local! {
    static CURRENT: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// Runs `f` with the ops of this thread in a precision.
///
/// What `f` records keeps the precision for its backward, which may run after the scope. Scopes nest; [`Precision::F32`]
/// turns an outer one off.
///
/// On the CPU everything is computed in `f32`, and rounded to the type (to nearest, ties to even; in `f16` what is too large
/// becomes infinite) where PyTorch has a tensor of it:
///
/// | op | forward | backward |
/// |---|---|---|
/// | convolution, linear | input, weight, bias and result | the gradients of all four |
/// | batch norm, and the relu, gelu or sum fused with it | the results | the gradients of input and results |
/// | pooling, gelu, dropout, losses, candle's ops | nothing | nothing |
///
/// Sums are in `f32` or `f64`, as without autocast, and so are batch norm's statistics and its parameters' gradients. `f64`
/// tensors are left alone. This takes more passes over memory, so it is slower than `f32`: it is for knowing what a GPU
/// will compute.
///
/// # Source
/// `torch.autocast`; proved by `tests/golden/autocast.safetensors`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use kestrel_kernels::autocast::{Precision, autocast};
/// use kestrel_kernels::linear;
///
/// let x = Tensor::new(&[[1.0 + f32::EPSILON]], &Device::Cpu)?;
/// let one = Tensor::ones((1, 1), DType::F32, &Device::Cpu)?;
/// let y = autocast(Precision::Bf16, || linear(&x, &one, None))?;
/// assert_eq!(y.to_vec2::<f32>()?, [[1.0]]);
/// # kestrel_kernels::Result::Ok(())
/// ```
pub fn autocast<T>(precision: Precision, f: impl FnOnce() -> T) -> T {
    /// Sets the precision back, also where `f` panics.
    struct Restore(Precision);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _restore = Restore(CURRENT.replace(precision));
    f()
}

/// The precision of this thread's innermost [`autocast`]; [`Precision::F32`] outside of one.
pub fn current() -> Precision {
    CURRENT.get()
}

/// To what an op rounds `x`, if it does.
pub(crate) fn of_tensor(x: &Tensor) -> Option<Precision> {
    let rounds = current() != Precision::F32 && x.dtype() == DType::F32 && x.device().is_cpu();
    rounds.then(current)
}

/// To what an op of a tape rounds `x`, if it does: a recorded value is `f32` on the CPU.
pub(crate) fn of_value(x: &Value) -> Option<Precision> {
    let rounds = current() != Precision::F32 && x.as_recorded().is_some() && x.shape_tensor().device().is_cpu();
    rounds.then(current)
}

/// The result, rounded, of `f` of the arguments of an affine op, rounded; likewise backward.
pub(crate) fn rounded(
    precision: Precision,
    [x, weight]: [&Tensor; 2],
    bias: Option<&Tensor>,
    f: impl FnOnce(&Tensor, &Tensor, Option<&Tensor>) -> Result<Tensor>,
) -> Result<Tensor> {
    let (x, weight) = (round(x, precision)?, round(weight, precision)?);
    let bias = bias.map(|bias| round(bias, precision)).transpose()?;
    let y = autocast(Precision::F32, || f(&x, &weight, bias.as_ref()))?;
    Ok(round(&y, precision)?)
}

/// The result, rounded, of `f` of `x`, rounded; likewise backward.
pub(crate) fn rounded_map(
    precision: Precision,
    x: &Tensor,
    f: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let x = round(x, precision)?;
    let y = autocast(Precision::F32, || f(&x))?;
    Ok(round(&y, precision)?)
}

pub(crate) use round::round;

#[cfg(test)]
mod tests;
