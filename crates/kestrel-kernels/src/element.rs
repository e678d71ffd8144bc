//! The element types of the CPU kernels, and the ways from candle's storage to slices and back.

use crate::{Error, Result};
use candle_core::{CpuStorage, DType, Layout, Storage, Tensor, WithDType};
use std::mem::MaybeUninit;

/// An element of a CPU kernel: `f32` or `f64`.
pub(crate) trait Element: WithDType {
    const ZERO: Self;
    const ONE: Self;
    const NEG_INFINITY: Self;
    /// The least normal number.
    const MIN_POSITIVE: Self;

    fn sqrt(self) -> Self;
    /// To `f64`, exactly.
    fn widen(self) -> f64;
    /// From `f64`, rounded.
    fn narrow(value: f64) -> Self;
    /// Zero of the same sign where the magnitude is below `least`; any other value as it is.
    fn flush_below(self, least: Self) -> Self;
    fn cpu_storage_as_mut_slice(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

macro_rules! element {
    ($float:ident, $variant:ident) => {
        impl Element for $float {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NEG_INFINITY: Self = $float::NEG_INFINITY;
            const MIN_POSITIVE: Self = $float::MIN_POSITIVE;

            #[inline(always)]
            fn sqrt(self) -> Self {
                $float::sqrt(self)
            }

            #[inline(always)]
            fn widen(self) -> f64 {
                self as f64
            }

            #[inline(always)]
            fn narrow(value: f64) -> Self {
                value as $float
            }

            #[inline(always)]
            fn flush_below(self, least: Self) -> Self {
                if self.abs() < least {
                    <$float>::copysign(0.0, self)
                } else {
                    self
                }
            }

            fn cpu_storage_as_mut_slice(storage: &mut CpuStorage) -> Option<&mut [Self]> {
                match storage {
                    CpuStorage::$variant(data) => Some(data),
                    _ => None,
                }
            }
        }
    };
}
element!(f32, F32);
element!(f64, F64);

/// Runs the body with `$T` bound to the tensor's element type; any other type is [`Error::DTypeMismatch`] as seen by candle.
macro_rules! dispatch {
    ($op:expr, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            got => Err(crate::element::not_a_float($op, got).into()),
        }
    };
}
pub(crate) use dispatch;

pub(crate) fn not_a_float(op: &'static str, got: DType) -> Error {
    Error::DTypeMismatch {
        op,
        expected: "f32 or f64".to_owned(),
        got,
    }
}

/// The elements of a contiguous CPU storage.
pub(crate) fn slice<'a, T: Element>(
    op: &'static str,
    storage: &'a CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a [T]> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| candle_core::Error::RequiresContiguous { op }.bt())?;
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// The elements of a contiguous CPU storage, to be written.
pub(crate) fn slice_mut<'a, T: Element>(
    op: &'static str,
    storage: &'a mut CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a mut [T]> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| candle_core::Error::RequiresContiguous { op }.bt())?;
    let got = candle_core::backend::BackendStorage::dtype(storage);
    let data = T::cpu_storage_as_mut_slice(storage).ok_or_else(|| Error::DTypeMismatch {
        op,
        expected: format!("{:?}", T::DTYPE),
        got,
    })?;
    Ok(&mut data[start..end])
}

/// Calls `read` with the elements of a CPU tensor, copied first if they are not contiguous.
pub(crate) fn with_slice<T: Element, R>(
    op: &'static str,
    tensor: &Tensor,
    read: impl FnOnce(&[T]) -> R,
) -> candle_core::Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(read(slice(op, storage, layout)?)),
        _ => candle_core::bail!("{op}: the tensor is not on the CPU"),
    }
}

/// `len` elements that `write` writes; the zeros of `vec!` would cost a pass over memory.
///
/// # Safety
/// `write` writes every element of its slice.
pub(crate) unsafe fn written<T>(len: usize, write: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut out = Vec::with_capacity(len);
    write(&mut out.spare_capacity_mut()[..len]);
    // SAFETY: `len` is within the capacity, or the slice would have panicked; the caller promises that it is written.
    unsafe { out.set_len(len) };
    out
}

/// A slice to be written as one that need not be initialised.
///
/// # Safety
/// The caller writes initialised elements alone.
pub(crate) unsafe fn to_be_written<T>(slice: &mut [T]) -> &mut [MaybeUninit<T>] {
    let len = slice.len();
    // SAFETY: the same elements, borrowed as long; `MaybeUninit` has their layout, and the caller keeps them initialised.
    unsafe { std::slice::from_raw_parts_mut(slice.as_mut_ptr().cast(), len) }
}

/// The elements of a tensor of these sizes, if it can be: fewer than 2^60, whose bytes an address can count.
pub(crate) fn count(sizes: [usize; 4]) -> Option<usize> {
    let elements = sizes
        .into_iter()
        .try_fold(1, |elements: usize, size| elements.checked_mul(size))?;
    (elements < 1 << 60).then_some(elements)
}

/// Errors unless `tensor` is `f32` or `f64`.
pub(crate) fn require_float(op: &'static str, tensor: &Tensor) -> Result<()> {
    match tensor.dtype() {
        DType::F32 | DType::F64 => Ok(()),
        got => Err(not_a_float(op, got)),
    }
}

/// Errors unless `tensor` has the element type of `like`.
pub(crate) fn require_same_dtype(op: &'static str, tensor: &Tensor, like: &Tensor) -> Result<()> {
    require_dtype(op, tensor, like.dtype())
}

/// Errors unless `tensor` has an element type.
pub(crate) fn require_dtype(op: &'static str, tensor: &Tensor, dtype: DType) -> Result<()> {
    if tensor.dtype() == dtype {
        return Ok(());
    }
    Err(Error::DTypeMismatch {
        op,
        expected: format!("{dtype:?}"),
        got: tensor.dtype(),
    })
}

/// Errors unless `tensor` has exactly these dimensions.
pub(crate) fn require_shape(op: &'static str, tensor: &Tensor, expected: &[usize]) -> Result<()> {
    if tensor.dims() == expected {
        return Ok(());
    }
    Err(Error::ShapeMismatch {
        op,
        expected: format!("{expected:?}"),
        got: tensor.dims().to_vec(),
    })
}

/// Errors unless `tensor` can be written in place.
pub(crate) fn require_contiguous(op: &'static str, tensor: &Tensor) -> Result<()> {
    if tensor.is_contiguous() {
        return Ok(());
    }
    Err(candle_core::Error::RequiresContiguous { op }.bt().into())
}

/// The four dimensions of a tensor, all but the first at least 1.
pub(crate) fn dims4(op: &'static str, tensor: &Tensor, legend: &str) -> Result<(usize, usize, usize, usize)> {
    match *tensor.dims() {
        [a, b, c, d] if b > 0 && c > 0 && d > 0 => Ok((a, b, c, d)),
        ref got => Err(Error::ShapeMismatch {
            op,
            expected: legend.to_owned(),
            got: got.to_vec(),
        }),
    }
}
