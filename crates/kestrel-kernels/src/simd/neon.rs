//! NEON on AArch64: 4 lanes, 32 registers.

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

use super::{Kernel, Simd};

/// Proof that the processor has NEON; [`Neon::detect`] makes the only ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neon(());

impl Neon {
    /// The proof, if it has.
    pub(super) fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

#[target_feature(enable = "neon")]
fn with_features<K: Kernel>(simd: Neon, kernel: K) -> K::Output {
    kernel.run(simd)
}

impl Simd for Neon {
    type V = float32x4_t;

    const LANES: usize = 4;
    const ROWS: usize = 12;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: self proves that the processor has NEON.
        unsafe { with_features(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> float32x4_t {
        // SAFETY: self proves NEON.
        unsafe { vdupq_n_f32(value) }
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: self proves NEON.
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: self proves NEON.
        unsafe { vsubq_f32(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: self proves NEON.
        unsafe { vmulq_f32(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: self proves NEON.
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    fn neg_mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: self proves NEON.
        unsafe { vfmsq_f32(c, a, b) }
    }

    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: self proves NEON.
        unsafe { vdivq_f32(a, b) }
    }

    #[inline(always)]
    fn exp2_of_whole(self, n: float32x4_t) -> float32x4_t {
        // The biased exponent, put in its place.
        let biased = self.add(n, self.splat(127.0));
        // SAFETY: self proves NEON.
        let biased = unsafe { vcvtq_s32_f32(biased) };
        // SAFETY: self proves NEON.
        let bits = unsafe { vshlq_n_s32::<23>(biased) };
        // SAFETY: self proves NEON.
        unsafe { vreinterpretq_f32_s32(bits) }
    }

    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: self proves NEON.
        unsafe { vmaxq_f32(a, b) }
    }

    #[inline(always)]
    fn maximum(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // The instruction gives NaN where either is.
        self.max(a, b)
    }

    #[inline(always)]
    fn where_equal(self, a: float32x4_t, b: float32x4_t, value: float32x4_t, other: float32x4_t) -> float32x4_t {
        // SAFETY: self proves NEON.
        let equal = unsafe { vceqq_f32(a, b) };
        // SAFETY: self proves NEON.
        unsafe { vbslq_f32(equal, value, other) }
    }

    #[inline(always)]
    fn gated(self, gate: float32x4_t, value: float32x4_t) -> float32x4_t {
        // SAFETY: self proves NEON.
        let closed = unsafe { vcleq_f32(gate, self.zero()) };
        // SAFETY: self proves NEON.
        unsafe { vbslq_f32(closed, self.zero(), value) }
    }

    #[inline(always)]
    unsafe fn load(self, source: *const f32) -> float32x4_t {
        // SAFETY: the caller promises 4 readable floats; self proves NEON.
        unsafe { vld1q_f32(source) }
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32, value: float32x4_t) {
        // SAFETY: the caller promises 4 writable floats; self proves NEON.
        unsafe { vst1q_f32(target, value) }
    }

    #[inline(always)]
    fn prefetch(self, _address: *const f32) {}
}
