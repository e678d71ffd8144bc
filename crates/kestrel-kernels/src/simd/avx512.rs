//! AVX-512F and BW: 16 lanes, 32 registers.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Proof that the processor has AVX-512F and AVX-512BW; [`Avx512::detect`] makes the only ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    /// The proof, if the processor has both.
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")).then_some(Self(()))
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn with_features<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
    kernel.run(simd)
}

impl Simd for Avx512 {
    type V = __m512;

    const LANES: usize = 16;
    const ROWS: usize = 12;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: self proves that the processor has AVX-512F and BW.
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
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: self proves AVX-512F.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn exp2_of_whole(self, n: __m512) -> __m512 {
        // SAFETY: self proves AVX-512F.
        unsafe { _mm512_scalef_ps(self.splat(1.0), n) }
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
    unsafe fn stream(self, target: *mut f32, value: __m512) {
        // SAFETY: the caller promises 16 writable floats aligned to 64 bytes; self proves AVX-512F.
        unsafe { _mm512_stream_ps(target, value) }
    }

    #[inline(always)]
    fn fence(self) {
        // SAFETY: every x86-64 processor has SSE.
        unsafe { _mm_sfence() }
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
    unsafe fn load_rgb(self, source: *const u8, skipped: usize, n: usize) -> [__m512; 3] {
        // SAFETY: the caller's promise.
        let bytes = unsafe { self.load_pixels(source, skipped, n) };
        // Twelve bytes are four pixels: each quarter of the register gets its own four.
        // SAFETY: self proves AVX-512F.
        let quarters = unsafe { _mm512_setr_epi32(0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11, 12) };
        // SAFETY: self proves AVX-512F.
        let pixels = unsafe { _mm512_permutexvar_epi32(quarters, bytes) };
        // A closure or an iterator would not be compiled with the instruction set.
        [
            self.channel(pixels, [0, 3, 6, 9]),
            self.channel(pixels, [1, 4, 7, 10]),
            self.channel(pixels, [2, 5, 8, 11]),
        ]
    }

    #[inline(always)]
    unsafe fn load_rgb_reversed(self, source: *const u8, skipped: usize, n: usize) -> [__m512; 3] {
        // SAFETY: the caller's promise.
        let bytes = unsafe { self.load_pixels(source, skipped, n) };
        // The quarters from last to first, and in each the pixels from last to first.
        // SAFETY: self proves AVX-512F.
        let quarters = unsafe { _mm512_setr_epi32(9, 10, 11, 12, 6, 7, 8, 9, 3, 4, 5, 6, 0, 1, 2, 3) };
        // SAFETY: self proves AVX-512F.
        let pixels = unsafe { _mm512_permutexvar_epi32(quarters, bytes) };
        [
            self.channel(pixels, [9, 6, 3, 0]),
            self.channel(pixels, [10, 7, 4, 1]),
            self.channel(pixels, [11, 8, 5, 2]),
        ]
    }

    #[inline(always)]
    unsafe fn load_transposed(self, source: *const f32, step: usize) -> [__m512; 8] {
        let mut rows = [self.zero(); 8];
        for (i, row) in rows.iter_mut().enumerate() {
            // SAFETY: the caller promises eight floats of row `i`; self proves AVX.
            let low = unsafe { _mm256_loadu_ps(source.wrapping_add(i * step)) };
            // SAFETY: the caller promises eight floats of row `i + 8`; self proves AVX.
            let high = unsafe { _mm256_loadu_ps(source.wrapping_add((i + 8) * step)) };
            // SAFETY: self proves AVX-512F.
            *row = unsafe { join(low, high) };
        }
        // SAFETY: self proves AVX-512F.
        unsafe { transpose_halves(rows) }
    }

    #[inline(always)]
    unsafe fn store_transposed(self, target: *mut f32, step: usize, columns: [__m512; 8]) {
        // SAFETY: self proves AVX-512F.
        let rows = unsafe { transpose_halves(columns) };
        for (i, row) in rows.into_iter().enumerate() {
            // SAFETY: self proves AVX-512F.
            let [low, high] = unsafe { halves(row) };
            // SAFETY: the caller promises eight floats of row `i`; self proves AVX.
            unsafe { _mm256_storeu_ps(target.wrapping_add(i * step), low) };
            // SAFETY: the caller promises eight floats of row `i + 8`; self proves AVX.
            unsafe { _mm256_storeu_ps(target.wrapping_add((i + 8) * step), high) };
        }
    }

    #[inline(always)]
    fn prefetch(self, address: *const f32) {
        // SAFETY: a prefetch never faults, whatever the address; SSE is part of the base machine.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
}

impl Avx512 {
    /// The bytes of `n` pixels, `skipped` pixels into the register; the others are 0.
    ///
    /// # Safety
    /// `skipped + n <= 16`, and `3 * n` bytes at `source` are readable.
    #[inline(always)]
    unsafe fn load_pixels(self, source: *const u8, skipped: usize, n: usize) -> __m512i {
        let mask = ((1_u64 << (3 * n)) - 1) << (3 * skipped);
        let start = source.wrapping_sub(3 * skipped).cast();
        // SAFETY: bytes outside of the mask are not touched; it has 3 * n bits from bit 3 * skipped on, which stand for the bytes
        // from `source` on that the caller promises; self proves AVX-512BW.
        unsafe { _mm512_maskz_loadu_epi8(mask, start) }
    }

    /// These four bytes of each quarter as floats.
    #[inline(always)]
    fn channel(self, pixels: __m512i, bytes: [u32; 4]) -> __m512 {
        // Each becomes the low byte of its lane; 0x80 clears a byte.
        let [a, b, c, d] = bytes;
        let [a, b, c, d] = [0x8080_8000 | a, 0x8080_8000 | b, 0x8080_8000 | c, 0x8080_8000 | d];
        // SAFETY: self proves AVX-512F.
        let choice = unsafe { _mm512_setr4_epi32(a as i32, b as i32, c as i32, d as i32) };
        // SAFETY: self proves AVX-512BW.
        let integers = unsafe { _mm512_shuffle_epi8(pixels, choice) };
        // SAFETY: self proves AVX-512F.
        unsafe { _mm512_cvtepi32_ps(integers) }
    }
}

/// The vector of two halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn join(low: __m256, high: __m256) -> __m512 {
    let low = _mm512_castps_pd(_mm512_castps256_ps512(low));
    _mm512_castpd_ps(_mm512_insertf64x4::<1>(low, _mm256_castps_pd(high)))
}

/// The two halves of a vector.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves(row: __m512) -> [__m256; 2] {
    let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(row));
    [_mm512_castps512_ps256(row), _mm256_castpd_ps(high)]
}

/// Transposes the 8x8 floats of the lower halves, and those of the upper halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_halves(rows: [__m512; 8]) -> [__m512; 8] {
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
    let top = transpose_quarters([r0, r1, r2, r3]);
    let bottom = transpose_quarters([r4, r5, r6, r7]);
    // Doubles 8 to 15 are the second operand's.
    let even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    let odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    let mut columns = [r0; 8];
    for i in 0..4 {
        columns[i] = _mm512_castpd_ps(_mm512_permutex2var_pd(top[i], even, bottom[i]));
        columns[i + 4] = _mm512_castpd_ps(_mm512_permutex2var_pd(top[i], odd, bottom[i]));
    }
    columns
}

/// Transposes the 4x4 floats of each quarter.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_quarters([a, b, c, d]: [__m512; 4]) -> [__m512d; 4] {
    let (ab, cd) = (interleave(a, b), interleave(c, d));
    [
        _mm512_unpacklo_pd(ab[0], cd[0]),
        _mm512_unpackhi_pd(ab[0], cd[0]),
        _mm512_unpacklo_pd(ab[1], cd[1]),
        _mm512_unpackhi_pd(ab[1], cd[1]),
    ]
}

/// The floats of two vectors by turns: of the lower halves of each quarter, and of the upper ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn interleave(a: __m512, b: __m512) -> [__m512d; 2] {
    [
        _mm512_castps_pd(_mm512_unpacklo_ps(a, b)),
        _mm512_castps_pd(_mm512_unpackhi_ps(a, b)),
    ]
}

/// The mask of the first `n` of 16 lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1_u32 << n) - 1) as __mmask16
}
