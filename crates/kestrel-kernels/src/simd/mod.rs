//! One vector abstraction over the instruction sets that the kernels run on; the set is chosen at run time.
//!
//! A kernel is written once against [`Simd`] and monomorphised for each instruction set inside a function that enables
//! it ([`Simd::vectorize`]). A value of a [`Simd`] type is the proof that the processor has the instructions: outside
//! this module one is only had through [`Isa::dispatch`], which asks the processor first.
//!
//! | [`Isa`] | machine | lanes | register block of a product |
//! |---|---|---|---|
//! | `Portable` | any; plain Rust that the compiler vectorises | 4 | 4 rows of 2 vectors |
//! | `Avx2` | x86-64 with AVX2 and FMA | 8 | 6 rows of 2 vectors |
//! | `Avx512` | x86-64 with AVX-512F and BW | 16 | 12 rows of 2 vectors |
//! | `Neon` | AArch64 | 4 | 12 rows of 2 vectors |

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod choice;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod stream;

use std::fmt;
use std::mem::MaybeUninit;
use std::str::FromStr;

pub use choice::ForceError;
pub(crate) use stream::streams;

/// The most lanes that any [`Simd`] type has.
pub const MAX_LANES: usize = 16;

/// A computation that is generic over the instruction set.
///
/// `run` and all that it calls should be `#[inline(always)]`: only what is inlined into [`Simd::vectorize`] is compiled
/// with the instruction set enabled.
pub trait Kernel {
    /// What the computation returns.
    type Output;

    /// Runs the computation.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Vectors of `f32` in one instruction set.
pub trait Simd: Copy + Send + Sync + 'static {
    /// A vector of [`LANES`](Self::LANES) floats.
    type V: Copy;

    /// Floats in a vector; at most [`MAX_LANES`].
    const LANES: usize;

    /// Rows of the register block of a matrix product whose columns are two vectors.
    const ROWS: usize;

    /// Runs `kernel` compiled for this instruction set.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;

    /// `value` in every lane.
    fn splat(self, value: f32) -> Self::V;

    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a * b + c`, in one rounding where the instruction set has it.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;

    /// `c - a * b`, in one rounding where the instruction set has it.
    fn neg_mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;

    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;

    /// `2^n` for whole numbers `n` from -126 to 127; of any other, anything.
    fn exp2_of_whole(self, n: Self::V) -> Self::V;

    /// The larger of `a` and `b`, lane by lane; `b` where it is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;

    /// The larger of `a` and `b`, lane by lane; NaN where either is NaN.
    fn maximum(self, a: Self::V, b: Self::V) -> Self::V;

    /// `value` where `a == b`, else `other`; `other` where either is NaN.
    fn where_equal(self, a: Self::V, b: Self::V, value: Self::V, other: Self::V) -> Self::V;

    /// 0 where `gate <= 0`, else `value`, so also where the gate is NaN.
    fn gated(self, gate: Self::V, value: Self::V) -> Self::V;

    /// Loads a vector.
    ///
    /// # Safety
    /// `LANES` floats at `source` are readable.
    unsafe fn load(self, source: *const f32) -> Self::V;

    /// Stores a vector.
    ///
    /// # Safety
    /// `LANES` floats at `target` are writable.
    unsafe fn store(self, target: *mut f32, value: Self::V);

    /// Stores a vector past the caches, where the instruction set can; another thread may read it after [`fence`](Self::fence).
    ///
    /// # Safety
    /// `LANES` floats at `target` are writable, and `target` is aligned to all of them together.
    #[inline(always)]
    unsafe fn stream(self, target: *mut f32, value: Self::V) {
        // SAFETY: the caller promises LANES writable floats.
        unsafe { self.store(target, value) }
    }

    /// Orders what this thread has [`stream`](Self::stream)ed before all that it stores later.
    #[inline(always)]
    fn fence(self) {}

    /// `n` pixels of interleaved red, green and blue bytes, as three vectors of floats: lane `skipped + i` gets pixel `i`, the
    /// other lanes are 0.
    ///
    /// # Safety
    /// `skipped + n <= LANES`, and `3 * n` bytes at `source` are readable.
    #[inline(always)]
    unsafe fn load_rgb(self, source: *const u8, skipped: usize, n: usize) -> [Self::V; 3] {
        let mut lanes = [[0.0; MAX_LANES]; 3];
        for pixel in 0..n {
            for (channel, lanes) in lanes.iter_mut().enumerate() {
                // SAFETY: 3 * pixel + channel < 3 * n, and the caller promises that many bytes.
                let byte = unsafe { source.add(3 * pixel + channel) };
                // SAFETY: the same.
                lanes[skipped + pixel] = f32::from(unsafe { byte.read() });
            }
        }
        // SAFETY: each array holds MAX_LANES >= LANES floats.
        lanes.map(|lanes| unsafe { self.load(lanes.as_ptr()) })
    }

    /// [`Self::load_rgb`] with the lanes in reverse order.
    ///
    /// # Safety
    /// That of [`Self::load_rgb`].
    #[inline(always)]
    unsafe fn load_rgb_reversed(self, source: *const u8, skipped: usize, n: usize) -> [Self::V; 3] {
        // SAFETY: the caller's promise.
        let [red, green, blue] = unsafe { self.load_rgb(source, skipped, n) };
        // A closure or an iterator would not be compiled with the instruction set.
        [self.reverse(red), self.reverse(green), self.reverse(blue)]
    }

    /// The lanes in reverse order.
    #[inline(always)]
    fn reverse(self, value: Self::V) -> Self::V {
        let mut lanes = [0.0; MAX_LANES];
        // SAFETY: the array holds MAX_LANES >= LANES floats.
        unsafe { self.store(lanes.as_mut_ptr(), value) };
        lanes[..Self::LANES].reverse();
        // SAFETY: the array holds MAX_LANES >= LANES floats.
        unsafe { self.load(lanes.as_ptr()) }
    }

    /// Asks for the cache line at `address`, which may be any address.
    fn prefetch(self, address: *const f32);

    /// 0 in every lane.
    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }

    /// Loads the first `n` lanes; the others are 0.
    ///
    /// # Safety
    /// `n <= LANES`, and `n` floats at `source` are readable.
    #[inline(always)]
    unsafe fn load_first(self, source: *const f32, n: usize) -> Self::V {
        let mut lanes = [0.0; MAX_LANES];
        // SAFETY: the caller promises n readable floats and n <= LANES <= MAX_LANES; a local array overlaps nothing.
        unsafe { std::ptr::copy_nonoverlapping(source, lanes.as_mut_ptr(), n) };
        // SAFETY: the array holds MAX_LANES >= LANES floats.
        unsafe { self.load(lanes.as_ptr()) }
    }

    /// Stores the first `n` lanes.
    ///
    /// # Safety
    /// `n <= LANES`, and `n` floats at `target` are writable.
    #[inline(always)]
    unsafe fn store_first(self, target: *mut f32, value: Self::V, n: usize) {
        let mut lanes = [0.0; MAX_LANES];
        // SAFETY: the array holds MAX_LANES >= LANES floats.
        unsafe { self.store(lanes.as_mut_ptr(), value) };
        // SAFETY: the caller promises n writable floats and n <= LANES <= MAX_LANES; a local array overlaps nothing.
        unsafe { std::ptr::copy_nonoverlapping(lanes.as_ptr(), target, n) };
    }

    /// Loads eight floats from each of `LANES` rows, `step` floats apart: vector `i` holds the `i`th float of every row.
    ///
    /// # Safety
    /// Eight floats at `source + lane * step` are readable for each lane.
    #[inline(always)]
    unsafe fn load_transposed(self, source: *const f32, step: usize) -> [Self::V; 8] {
        let mut columns = [self.zero(); 8];
        for (i, column) in columns.iter_mut().enumerate() {
            let mut lanes = [0.0; MAX_LANES];
            for (lane, value) in lanes[..Self::LANES].iter_mut().enumerate() {
                // SAFETY: the caller promises eight floats of each lane's row.
                *value = unsafe { source.wrapping_add(lane * step + i).read() };
            }
            // SAFETY: the array holds MAX_LANES >= LANES floats.
            *column = unsafe { self.load(lanes.as_ptr()) };
        }
        columns
    }

    /// Stores eight floats to each of `LANES` rows, `step` floats apart: vector `i` holds the `i`th float of every row.
    ///
    /// # Safety
    /// Eight floats at `target + lane * step` are writable for each lane.
    #[inline(always)]
    unsafe fn store_transposed(self, target: *mut f32, step: usize, columns: [Self::V; 8]) {
        for (i, column) in columns.into_iter().enumerate() {
            let mut lanes = [0.0; MAX_LANES];
            // SAFETY: the array holds MAX_LANES >= LANES floats.
            unsafe { self.store(lanes.as_mut_ptr(), column) };
            for (lane, &value) in lanes[..Self::LANES].iter().enumerate() {
                // SAFETY: the caller promises eight floats of each lane's row.
                unsafe { target.wrapping_add(lane * step + i).write(value) };
            }
        }
    }
}

/// Stores the first lanes of a vector: as many as there are places, at most all.
///
/// # Panics
/// If there are more places than lanes.
#[inline(always)]
pub(crate) fn store<S: Simd>(s: S, places: &mut [MaybeUninit<f32>], value: S::V) {
    let target = places.as_mut_ptr().cast();
    if places.len() == S::LANES {
        // SAFETY: the slice has LANES floats.
        unsafe { s.store(target, value) };
    } else {
        assert!(places.len() < S::LANES, "expected at most a vector");
        // SAFETY: the slice has as many floats, fewer than LANES by the assertion.
        unsafe { s.store_first(target, value, places.len()) };
    }
}

/// An instruction set that the kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, on any machine.
    Portable,
    /// x86-64 with AVX2 and FMA: 8 lanes.
    Avx2,
    /// x86-64 with AVX-512F and BW (and AVX2, FMA): 16 lanes.
    Avx512,
    /// AArch64 with NEON: 4 lanes.
    Neon,
}

impl Isa {
    /// Every instruction set, the fastest first.
    pub const ALL: [Isa; 4] = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];

    /// The fastest instruction set of this processor.
    pub fn detect() -> Isa {
        Isa::ALL
            .into_iter()
            .find(|isa| isa.is_available())
            .unwrap_or(Isa::Portable)
    }

    /// Whether this processor, and this build, has the instruction set.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::Avx512::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::Neon::detect().is_some(),
            _ => false,
        }
    }

    /// Runs `kernel` with this instruction set, or with [`Isa::Portable`] where the processor lacks it.
    ///
    /// `kernel` itself is compiled for the base machine: it is the driver, and hands its inner loops to
    /// [`Simd::vectorize`].
    pub fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                if let Some(simd) = avx512::Avx512::detect() {
                    return kernel.run(simd);
                }
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                if let Some(simd) = avx2::Avx2::detect() {
                    return kernel.run(simd);
                }
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => {
                if let Some(simd) = neon::Neon::detect() {
                    return kernel.run(simd);
                }
            }
            _ => {}
        }
        kernel.run(portable::Portable)
    }

    /// The name by which the set is asked for: `portable`, `avx2`, `avx512`, `neon`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is none of [`Isa::name`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of avx512, avx2, neon, portable, got {got:?}")]
pub struct UnknownIsa {
    /// The name given.
    pub got: String,
}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Self, UnknownIsa> {
        Isa::ALL
            .into_iter()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| UnknownIsa { got: name.to_owned() })
    }
}

#[cfg(test)]
mod tests;
