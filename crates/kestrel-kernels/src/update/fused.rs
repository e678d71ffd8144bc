//! One pass over a gradient and the tensors that it moves; what an element becomes is the caller's.

use std::array;
use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};
use rayon::prelude::*;

use crate::element::{self, Element};
use crate::simd::{Isa, Kernel, Simd};

/// How many times the least normal number a parameter is stored as, at least, if it is not 0: `2^-100` in `f32`. A step multiplies
/// it by rates and shares, and those products must not be subnormal either: a parameter whose moments were rounded
/// to 0 would stay where it is, and slow down every step from then on.
const LEAST_PARAM_FACTOR: u32 = 1 << 26;

/// The least magnitude of a parameter of `f32` that a step stores, if it is not 0: `2^-100`, about 8e-31.
pub const LEAST_PARAM: f32 = f32::MIN_POSITIVE * LEAST_PARAM_FACTOR as f32;

/// Elements of a piece of work.
const BLOCK: usize = 1 << 13;
/// Pieces that a thread takes at once, at most: what is left of a larger share when the others are done, they cannot help with.
const AT_ONCE: usize = 8;

/// Sets the elements of `moved` to `f(elements of moved, element of read)`, place by place, on the CPU.
///
/// Each element goes through `f` by itself, so vectors and threads change no bit. What `f` gives is stored as the
/// [module](super) says: the first of `moved`, the parameter, as 0 below [`LEAST_PARAM`], the others where they are subnormal.
pub(super) fn pass<T: Element, const N: usize>(
    op: &'static str,
    moved: [&Tensor; N],
    read: &Tensor,
    f: impl Fn([T; N], T) -> [T; N] + Copy + Send + Sync,
) -> candle_core::Result<()> {
    // All are locked at once, and the second lock of one storage would wait for the first.
    let addresses: Vec<usize> = moved.iter().chain([&read]).map(|t| storage_address(t)).collect();
    let shared = |(i, address): (usize, &usize)| addresses[..i].contains(address);
    if addresses.iter().enumerate().any(shared) {
        candle_core::bail!("{op}: two of its tensors share their storage");
    }
    element::with_slice::<T, _>(op, read, |read| {
        let mut run = |found: Vec<&mut [T]>| {
            if let Ok(moved) = <[&mut [T]; N]>::try_from(found) {
                Isa::current().dispatch(Pass { moved, read, f });
            }
        };
        collect(op, &moved, Vec::with_capacity(N), &mut run)
    })?
}

/// Where a tensor's storage lies; views of one storage share it.
fn storage_address(tensor: &Tensor) -> usize {
    let (storage, _) = tensor.storage_and_layout();
    std::ptr::from_ref(&*storage).addr()
}

/// Calls `then` with `found` and the elements of `rest`: candle hands an op one storage to write, so ops are nested.
fn collect<T: Element>(
    op: &'static str,
    rest: &[&Tensor],
    found: Vec<&mut [T]>,
    then: &mut dyn FnMut(Vec<&mut [T]>),
) -> candle_core::Result<()> {
    let Some((first, rest)) = rest.split_first() else {
        then(found);
        return Ok(());
    };
    first.inplace_op1(&Nested {
        op,
        rest,
        inner: Mutex::new((found, then)),
    })
}

/// The op on one tensor, inside of which come those on the rest.
struct Nested<'a, 'f, T> {
    op: &'static str,
    rest: &'a [&'a Tensor],
    /// Locked once; the lock is there because an op only borrows itself.
    #[allow(clippy::type_complexity, reason = "the slices and the closure that waits for them")]
    inner: Mutex<(Vec<&'a mut [T]>, &'a mut (dyn FnMut(Vec<&mut [T]>) + 'f))>,
}

impl<T: Element> InplaceOp1 for Nested<'_, '_, T> {
    fn name(&self) -> &'static str {
        self.op
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<&mut [T]> = std::mem::take(&mut inner.0);
        found.push(element::slice_mut::<T>(self.op, storage, layout)?);
        collect(self.op, self.rest, found, inner.1)
    }
}

/// The whole of a pass.
struct Pass<'a, T, F, const N: usize> {
    moved: [&'a mut [T]; N],
    read: &'a [T],
    f: F,
}

impl<T: Element, F: Fn([T; N], T) -> [T; N] + Copy + Send + Sync, const N: usize> Kernel for Pass<'_, T, F, N> {
    type Output = ();

    fn run<S: Simd>(self, s: S) {
        let Self { moved, read, f } = self;
        let mut rests = moved.map(|slice| slice.chunks_mut(BLOCK));
        let pieces: Vec<_> = read
            .chunks(BLOCK)
            .map(|read| {
                let moved = array::from_fn(|i| rests[i].next().unwrap_or_default());
                Piece(Pass { moved, read, f })
            })
            .collect();
        pieces
            .into_par_iter()
            .with_max_len(AT_ONCE)
            .for_each(|piece| s.vectorize(piece));
    }
}

/// One piece of it.
struct Piece<'a, T, F, const N: usize>(Pass<'a, T, F, N>);

impl<T: Element, F: Fn([T; N], T) -> [T; N], const N: usize> Kernel for Piece<'_, T, F, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Pass { moved, read, f } = self.0;
        // Equal lengths, known to the compiler, leave no check in the loop.
        let moved = moved.map(|slice| &mut slice[..read.len()]);
        let mut least = [T::MIN_POSITIVE; N];
        least[0] = T::narrow(T::MIN_POSITIVE.widen() * f64::from(LEAST_PARAM_FACTOR));
        for (i, read) in read.iter().enumerate() {
            let values = f(array::from_fn(|k| moved[k][i]), *read);
            for k in 0..N {
                moved[k][i] = values[k].flush_below(least[k]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn tiny_numbers_become_zero_and_others_stay() -> candle_core::Result<()> {
        assert_eq!(LEAST_PARAM, 2f32.powi(-100));
        let least = [LEAST_PARAM, f32::MIN_POSITIVE];
        // In whole vectors and in the rest after them.
        for repeats in [1, 16] {
            let values = |least: f32| {
                let kept = [0.0, least, 1.5, f32::MAX, f32::INFINITY, f32::NAN];
                let flushed = [least.next_down(), least / 2.0, f32::from_bits(1)];
                let values = kept.into_iter().chain(flushed);
                let expected = kept.into_iter().chain([0.0; 3]);
                let both = values.zip(expected);
                let both: Vec<(f32, f32)> = both.flat_map(|(v, e)| [(v, e), (-v, -e)]).collect();
                both.repeat(repeats)
            };
            let [param, state] = least.map(values);
            let tensor = |values: &[(f32, f32)]| {
                let values: Vec<f32> = values.iter().map(|(value, _)| *value).collect();
                Tensor::new(values, &Device::Cpu)
            };
            let moved = [tensor(&param)?, tensor(&state)?];
            pass::<f32, 2>("test", [&moved[0], &moved[1]], &moved[0].zeros_like()?, |values, _| {
                values
            })?;
            for (moved, values) in moved.iter().zip([param, state]) {
                let got: Vec<u32> = moved.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect();
                let expected: Vec<u32> = values.into_iter().map(|(_, expected)| expected.to_bits()).collect();
                assert_eq!(got, expected);
            }
        }
        let moved = Tensor::new(&[f64::MIN_POSITIVE, 2e-300], &Device::Cpu)?;
        pass::<f64, 1>("test", [&moved], &moved.zeros_like()?, |values, _| values)?;
        assert_eq!(moved.to_vec1::<f64>()?, [0.0, 2e-300]);
        Ok(())
    }
}
