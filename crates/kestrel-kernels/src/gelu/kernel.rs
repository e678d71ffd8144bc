//! The passes over memory: `f32` on vectors, `f64` element by element.

use std::f64::consts::{FRAC_1_SQRT_2, PI};
use std::mem::MaybeUninit;

use candle_core::cpu::erf::erfc_f64;
use rayon::prelude::*;

use super::normal;
use crate::conv2d::hooks::load_channels;
use crate::element::{to_be_written, written};
use crate::simd::{self, Isa, Kernel, Simd};

/// Elements of a piece of work.
const BLOCK: usize = 1 << 14;

/// `gelu(x)` of each element.
pub(super) fn forward(x: &[f32]) -> Vec<f32> {
    Isa::current().dispatch(Forward(x))
}

/// Multiplies each gradient by the slope at its element, in place.
///
/// # Panics
/// If there are not as many of both.
pub(super) fn backward(x: &[f32], g: &mut [f32]) {
    assert_eq!(x.len(), g.len(), "expected a gradient for each element");
    Isa::current().dispatch(BackwardPass(x, g));
}

/// `gelu(x)` of each element.
pub(super) fn forward_f64(x: &[f64]) -> Vec<f64> {
    x.par_iter().with_min_len(BLOCK).map(|x| x * cumulative(*x)).collect()
}

/// Multiplies each gradient by the slope at its element, in place.
pub(super) fn backward_f64(x: &[f64], g: &mut [f64]) {
    g.par_iter_mut().zip(x).with_min_len(BLOCK).for_each(|(g, x)| {
        let density = (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
        *g *= cumulative(*x) + x * density;
    });
}

/// `Φ(x)`.
fn cumulative(x: f64) -> f64 {
    0.5 * erfc_f64(-x * FRAC_1_SQRT_2)
}

struct Forward<'a>(&'a [f32]);

impl Kernel for Forward<'_> {
    type Output = Vec<f32>;

    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let fill = |y: &mut [MaybeUninit<f32>]| {
            let pieces = y.par_chunks_mut(BLOCK).zip(self.0.par_chunks(BLOCK));
            pieces.for_each(|(y, x)| s.vectorize(ForwardPiece(x, y)));
        };
        // SAFETY: a piece writes every element of its part, and the parts make up the whole.
        unsafe { written(self.0.len(), fill) }
    }
}

/// As many elements and results.
struct ForwardPiece<'a>(&'a [f32], &'a mut [MaybeUninit<f32>]);

impl Kernel for ForwardPiece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self(x, y) = self;
        for (x, y) in x.chunks(S::LANES).zip(y.chunks_mut(S::LANES)) {
            let value = normal::gelu(s, load_channels(s, x, 0, x.len()));
            simd::store(s, y, value);
        }
    }
}

struct BackwardPass<'a>(&'a [f32], &'a mut [f32]);

impl Kernel for BackwardPass<'_> {
    type Output = ();

    fn run<S: Simd>(self, s: S) {
        let pieces = self.1.par_chunks_mut(BLOCK).zip(self.0.par_chunks(BLOCK));
        pieces.for_each(|(g, x)| s.vectorize(BackwardPiece(x, g)));
    }
}

/// As many elements and gradients.
struct BackwardPiece<'a>(&'a [f32], &'a mut [f32]);

impl Kernel for BackwardPiece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self(x, g) = self;
        for (x, g) in x.chunks(S::LANES).zip(g.chunks_mut(S::LANES)) {
            let slope = normal::gelu_slope(s, load_channels(s, x, 0, x.len()));
            let value = s.mul(load_channels(s, g, 0, g.len()), slope);
            // SAFETY: what is stored is initialised.
            simd::store(s, unsafe { to_be_written(g) }, value);
        }
    }
}
