//! AVX-512F: 16 lanes, 32 registers.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that the processor has AVX-512F; [`Avx512::detect`] makes the only ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    /// The proof, if it has.
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }
}

#[target_feature(enable = "avx512f")]
fn with_features<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
    kernel.run(simd)
}

impl Simd for Avx512 {
    type V = __m512;

    const LANES: usize = 16;
    const ROWS: usize = 12;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: self proves that the processor has AVX-512F.
        unsafe { with_features(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: self proves AVX-512F.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: self proves AVX-512F.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: self proves AVX-512F.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: self proves AVX-512F.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: self proves AVX-512F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn neg_mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: self proves AVX-512F.
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: self proves AVX-512F.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn maximum(self, a: __m512, b: __m512) -> __m512 {
        // The instruction takes `b` where either is NaN.
        // SAFETY: self proves AVX-512F.
        let a_is_nan = unsafe { _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a) };
        // SAFETY: self proves AVX-512F.
        unsafe { _mm512_mask_mov_ps(self.max(a, b), a_is_nan, a) }
    }

    #[inline(always)]
    fn where_equal(self, a: __m512, b: __m512, value: __m512, other: __m512) -> __m512 {
        // SAFETY: self proves AVX-512F.
        let equal = unsafe { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b) };
        // SAFETY: self proves AVX-512F.
        unsafe { _mm512_mask_mov_ps(other, equal, value) }
    }

    #[inline(always)]
    fn gated(self, gate: __m512, value: __m512) -> __m512 {
        // SAFETY: self proves AVX-512F.
        let open = unsafe { _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(gate, self.zero()) };
        // SAFETY: self proves AVX-512F.
        unsafe { _mm512_maskz_mov_ps(open, value) }
    }

    #[inline(always)]
    unsafe fn load(self, source: *const f32) -> __m512 {
        // SAFETY: the caller promises 16 readable floats; self proves AVX-512F.
        unsafe { _mm512_loadu_ps(source) }
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32, value: __m512) {
        // SAFETY: the caller promises 16 writable floats; self proves AVX-512F.
        unsafe { _mm512_storeu_ps(target, value) }
    }

    #[inline(always)]
    unsafe fn load_first(self, source: *const f32, n: usize) -> __m512 {
        // SAFETY: the mask has n <= 16 bits, and the caller promises n readable floats; self proves AVX-512F.
        unsafe { _mm512_maskz_loadu_ps(first(n), source) }
    }

    #[inline(always)]
    unsafe fn store_first(self, target: *mut f32, value: __m512, n: usize) {
        // SAFETY: the mask has n <= 16 bits, and the caller promises n writable floats; self proves AVX-512F.
        unsafe { _mm512_mask_storeu_ps(target, first(n), value) }
    }

    #[inline(always)]
    fn prefetch(self, address: *const f32) {
        // SAFETY: a prefetch never faults, whatever the address; SSE is part of the base machine.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
}

/// The mask of the first `n` of 16 lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1_u32 << n) - 1) as __mmask16
}
