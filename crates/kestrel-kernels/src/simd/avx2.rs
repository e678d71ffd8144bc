//! AVX2 with FMA: 8 lanes, 16 registers.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that the processor has AVX2 and FMA; [`Avx2::detect`] makes the only ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    /// The proof, if the processor has both.
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }
}

#[target_feature(enable = "avx2,fma")]
fn with_features<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
    kernel.run(simd)
}

impl Simd for Avx2 {
    type V = __m256;

    const LANES: usize = 8;
    const ROWS: usize = 6;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: self proves that the processor has AVX2 and FMA.
        unsafe { with_features(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        // SAFETY: self proves AVX.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: self proves AVX.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: self proves AVX.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: self proves AVX.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: self proves FMA.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn neg_mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: self proves FMA.
        unsafe { _mm256_fnmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: self proves AVX.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn exp2_of_whole(self, n: __m256) -> __m256 {
        // The biased exponent, put in its place.
        let biased = self.add(n, self.splat(127.0));
        // SAFETY: self proves AVX.
        let biased = unsafe { _mm256_cvtps_epi32(biased) };
        // SAFETY: self proves AVX2.
        let bits = unsafe { _mm256_slli_epi32::<23>(biased) };
        // SAFETY: self proves AVX.
        unsafe { _mm256_castsi256_ps(bits) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: self proves AVX.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn maximum(self, a: __m256, b: __m256) -> __m256 {
        // The instruction takes `b` where either is NaN.
        // SAFETY: self proves AVX.
        let a_is_nan = unsafe { _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a) };
        // SAFETY: self proves AVX.
        unsafe { _mm256_blendv_ps(self.max(a, b), a, a_is_nan) }
    }

    #[inline(always)]
    fn where_equal(self, a: __m256, b: __m256, value: __m256, other: __m256) -> __m256 {
        // SAFETY: self proves AVX.
        let equal = unsafe { _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b) };
        // SAFETY: self proves AVX.
        unsafe { _mm256_blendv_ps(other, value, equal) }
    }

    #[inline(always)]
    fn gated(self, gate: __m256, value: __m256) -> __m256 {
        // SAFETY: self proves AVX.
        let open = unsafe { _mm256_cmp_ps::<_CMP_NLE_UQ>(gate, self.zero()) };
        // SAFETY: self proves AVX.
        unsafe { _mm256_and_ps(open, value) }
    }

    #[inline(always)]
    unsafe fn load(self, source: *const f32) -> __m256 {
        // SAFETY: the caller promises 8 readable floats; self proves AVX.
        unsafe { _mm256_loadu_ps(source) }
    }

    #[inline(always)]
    unsafe fn store(self, target: *mut f32, value: __m256) {
        // SAFETY: the caller promises 8 writable floats; self proves AVX.
        unsafe { _mm256_storeu_ps(target, value) }
    }

    #[inline(always)]
    unsafe fn load_rgb(self, source: *const u8, skipped: usize, n: usize) -> [__m256; 3] {
        let mut copy = [0; 24];
        let whole = if n == 8 {
            source
        } else {
            let target = copy[3 * skipped..][..3 * n].as_mut_ptr();
            // SAFETY: the caller promises 3 * n readable bytes; the slice holds as many, and a local array overlaps nothing.
            unsafe { std::ptr::copy_nonoverlapping(source, target, 3 * n) };
            copy.as_ptr()
        };
        // SAFETY: 24 bytes at `whole` are readable: the caller's, or the array's.
        let low = unsafe { _mm_loadu_si128(whole.cast()) };
        // SAFETY: byte 8 of 24.
        let second = unsafe { whole.add(8) };
        // SAFETY: bytes 8 to 24 of the same 24.
        let high = unsafe { _mm_loadu_si128(second.cast()) };
        // SAFETY: self proves AVX2.
        let pixels = unsafe { _mm256_set_m128i(high, low) };
        // A closure or an iterator would not be compiled with the instruction set.
        [
            self.channel(pixels, 0),
            self.channel(pixels, 1),
            self.channel(pixels, 2),
        ]
    }

    #[inline(always)]
    fn reverse(self, value: __m256) -> __m256 {
        // SAFETY: self proves AVX.
        let index = unsafe { _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0) };
        // SAFETY: self proves AVX2.
        unsafe { _mm256_permutevar8x32_ps(value, index) }
    }

    #[inline(always)]
    unsafe fn load_transposed(self, source: *const f32, step: usize) -> [__m256; 8] {
        let mut rows = [self.zero(); 8];
        for (i, row) in rows.iter_mut().enumerate() {
            // SAFETY: the caller promises eight floats of row `i`.
            *row = unsafe { self.load(source.wrapping_add(i * step)) };
        }
        // SAFETY: self proves AVX.
        unsafe { transpose(rows) }
    }

    #[inline(always)]
    unsafe fn store_transposed(self, target: *mut f32, step: usize, columns: [__m256; 8]) {
        // SAFETY: self proves AVX.
        let rows = unsafe { transpose(columns) };
        for (i, row) in rows.into_iter().enumerate() {
            // SAFETY: the caller promises eight floats of row `i`.
            unsafe { self.store(target.wrapping_add(i * step), row) };
        }
    }

    #[inline(always)]
    fn prefetch(self, address: *const f32) {
        // SAFETY: a prefetch never faults, whatever the address; SSE is part of the base machine.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
}

impl Avx2 {
    /// Byte `channel` of the four pixels of each half as floats; they start at byte 0 of the low half, at byte 4 of the high.
    #[inline(always)]
    fn channel(self, pixels: __m256i, channel: u32) -> __m256 {
        // Byte 3 i + channel of the pixels becomes the low byte of lane i; 0x80 clears a byte.
        let first = 0x8080_8000 | channel;
        let [a, b, c, d] = [first, first + 3, first + 6, first + 9];
        let [e, f, g, h] = [first + 4, first + 7, first + 10, first + 13];
        // SAFETY: self proves AVX.
        let choice = unsafe {
            _mm256_setr_epi32(
                a as i32, b as i32, c as i32, d as i32, e as i32, f as i32, g as i32, h as i32,
            )
        };
        // SAFETY: self proves AVX2.
        let integers = unsafe { _mm256_shuffle_epi8(pixels, choice) };
        // SAFETY: self proves AVX.
        unsafe { _mm256_cvtepi32_ps(integers) }
    }
}

/// Transposes 8x8 floats.
#[inline]
#[target_feature(enable = "avx")]
fn transpose(rows: [__m256; 8]) -> [__m256; 8] {
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
    let top = transpose_halves([r0, r1, r2, r3]);
    let bottom = transpose_halves([r4, r5, r6, r7]);
    let mut columns = [r0; 8];
    for i in 0..4 {
        columns[i] = _mm256_permute2f128_ps::<0x20>(top[i], bottom[i]);
        columns[i + 4] = _mm256_permute2f128_ps::<0x31>(top[i], bottom[i]);
    }
    columns
}

/// Transposes the 4x4 floats of each half.
#[inline]
#[target_feature(enable = "avx")]
fn transpose_halves([a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
    let (ab, cd) = (interleave(a, b), interleave(c, d));
    [
        _mm256_castpd_ps(_mm256_unpacklo_pd(ab[0], cd[0])),
        _mm256_castpd_ps(_mm256_unpackhi_pd(ab[0], cd[0])),
        _mm256_castpd_ps(_mm256_unpacklo_pd(ab[1], cd[1])),
        _mm256_castpd_ps(_mm256_unpackhi_pd(ab[1], cd[1])),
    ]
}

/// The floats of two vectors by turns: of the lower parts of each half, and of the upper ones.
#[inline]
#[target_feature(enable = "avx")]
fn interleave(a: __m256, b: __m256) -> [__m256d; 2] {
    [
        _mm256_castps_pd(_mm256_unpacklo_ps(a, b)),
        _mm256_castps_pd(_mm256_unpackhi_ps(a, b)),
    ]
}
