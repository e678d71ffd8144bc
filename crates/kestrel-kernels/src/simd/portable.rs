//! Plain Rust on arrays of 4 floats, which compilers turn into the base machine's vectors; no `unsafe` arithmetic.

use super::{Kernel, Simd};

/// Four floats, aligned like a 128-bit register.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
pub(super) struct F32x4([f32; 4]);

/// Needs nothing of the processor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

#[inline(always)]
fn zip(a: F32x4, b: F32x4, f: impl Fn(f32, f32) -> f32) -> F32x4 {
    F32x4([
        f(a.0[0], b.0[0]),
        f(a.0[1], b.0[1]),
        f(a.0[2], b.0[2]),
        f(a.0[3], b.0[3]),
    ])
}

/// Not inlined, so that a kernel is compiled once.
#[inline(never)]
fn outlined<K: Kernel>(simd: Portable, kernel: K) -> K::Output {
    kernel.run(simd)
}

impl Simd for Portable {
    type V = F32x4;

    const LANES: usize = 4;
    const ROWS: usize = 4;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        outlined(self, kernel)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> F32x4 {
        F32x4([value; 4])
    }

    #[inline(always)]
    fn add(self, a: F32x4, b: F32x4) -> F32x4 {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: F32x4, b: F32x4) -> F32x4 {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: F32x4, b: F32x4) -> F32x4 {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn mul_add(self, a: F32x4, b: F32x4, c: F32x4) -> F32x4 {
        self.add(self.mul(a, b), c)
    }

    #[inline(always)]
    fn neg_mul_add(self, a: F32x4, b: F32x4, c: F32x4) -> F32x4 {
        self.sub(c, self.mul(a, b))
    }

    #[inline(always)]
    fn div(self, a: F32x4, b: F32x4) -> F32x4 {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn exp2_of_whole(self, n: F32x4) -> F32x4 {
        // The biased exponent, put in its place.
        F32x4(std::array::from_fn(|i| {
            f32::from_bits(((n.0[i] as i32).wrapping_add(127) as u32) << 23)
        }))
    }

    #[inline(always)]
    fn max(self, a: F32x4, b: F32x4) -> F32x4 {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn maximum(self, a: F32x4, b: F32x4) -> F32x4 {
        zip(a, b, |a, b| if a > b || a.is_nan() { a } else { b })
    }

    #[inline(always)]
    fn where_equal(self, a: F32x4, b: F32x4, value: F32x4, other: F32x4) -> F32x4 {
        F32x4(std::array::from_fn(|i| {
            if a.0[i] == b.0[i] { value.0[i] } else { other.0[i] }
        }))
    }

    #[inline(always)]
    fn gated(self, gate: F32x4, value: F32x4) -> F32x4 {
        zip(gate, value, |gate, value| if gate <= 0.0 { 0.0 } else { value })
    }

    #[inline(always)]
    unsafe fn load(self, source: *const f32) -> F32x4 {
        // SAFETY: the caller promises 4 readable floats; the read needs no more alignment than a float's.
        F32x4(unsafe { source.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32, value: F32x4) {
        // SAFETY: the caller promises 4 writable floats; the write needs no more alignment than a float's.
        unsafe { target.cast::<[f32; 4]>().write_unaligned(value.0) }
    }

    #[inline(always)]
    fn prefetch(self, _address: *const f32) {}
}
