//! The inner loops: plain Rust over strips, compiled for the instruction set of the machine.
//!
//! No multiply-add is fused, so that the gate is the same on every machine, and in forward and backward.

use crate::simd::{Isa, Kernel, Simd};
use std::mem::MaybeUninit;

/// Strips that are summed in f32 before the sum goes on in f64.
const RUN: usize = 16;

/// `(x − mean) · scale + bias`, each a strip.
pub(super) struct Affine<'a> {
    pub(super) mean: &'a [f32],
    pub(super) scale: &'a [f32],
    pub(super) bias: &'a [f32],
}

/// `value`, or 0 where `gate ≤ 0`; it stays where the gate is NaN.
#[inline(always)]
fn gated(gate: f32, value: f32) -> f32 {
    std::hint::select_unpredictable(gate <= 0.0, 0.0, value)
}

/// Two sums over the strips of a piece of work, by place in the strip.
pub(super) trait Reduction: Send {
    /// Floats of the piece.
    fn len(&self) -> usize;

    /// Adds the strip that begins at `start`; the last one of a tensor may be short.
    ///
    /// Implementations are `#[inline(always)]`.
    fn add(&self, start: usize, sums: [&mut [f32]; 2]);
}

/// `Σ (x − shift)` and `Σ (x − shift)²`.
pub(super) struct MomentSums<'a> {
    pub(super) x: &'a [f32],
    pub(super) shift: &'a [f32],
}

impl Reduction for MomentSums<'_> {
    fn len(&self) -> usize {
        self.x.len()
    }

    #[inline(always)]
    fn add(&self, start: usize, [sums, squares]: [&mut [f32]; 2]) {
        let x = &self.x[start..];
        for (((x, shift), sum), square) in x.iter().zip(self.shift).zip(sums).zip(squares) {
            let centered = x - shift;
            *sum += centered;
            *square += centered * centered;
        }
    }
}

/// `Σ g` and `Σ g (x − mean)`, where `g` is `dy` gated by the affine function of `x`.
pub(super) struct GradientSums<'a> {
    pub(super) x: &'a [f32],
    pub(super) dy: &'a [f32],
    pub(super) affine: &'a Affine<'a>,
}

impl Reduction for GradientSums<'_> {
    fn len(&self) -> usize {
        self.x.len()
    }

    #[inline(always)]
    fn add(&self, start: usize, [sums, products]: [&mut [f32]; 2]) {
        let Affine { mean, scale, bias } = self.affine;
        let data = self.x[start..].iter().zip(&self.dy[start..]);
        let constants = mean.iter().zip(*scale).zip(*bias);
        for (((x, dy), ((mean, scale), bias)), (sum, product)) in data.zip(constants).zip(sums.iter_mut().zip(products))
        {
            let centered = x - mean;
            let g = gated(centered * scale + bias, *dy);
            *sum += g;
            *product += g * centered;
        }
    }
}

/// The two sums of a piece, by place in a strip of `strip` floats.
pub(super) fn reduce<R: Reduction>(piece: R, strip: usize) -> [Vec<f64>; 2] {
    run(Reduce { piece, strip })
}

struct Reduce<R> {
    piece: R,
    strip: usize,
}

impl<R: Reduction> Kernel for Reduce<R> {
    type Output = [Vec<f64>; 2];

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> [Vec<f64>; 2] {
        let Self { piece, strip } = self;
        let (mut firsts, mut seconds) = (vec![0f32; strip], vec![0f32; strip]);
        let (mut first_totals, mut second_totals) = (vec![0f64; strip], vec![0f64; strip]);
        for run in (0..piece.len()).step_by(RUN * strip) {
            for start in (run..piece.len().min(run + RUN * strip)).step_by(strip) {
                piece.add(start, [&mut firsts, &mut seconds]);
            }
            fold(&mut firsts, &mut first_totals);
            fold(&mut seconds, &mut second_totals);
        }
        [first_totals, second_totals]
    }
}

/// Adds `sums` to `totals` and clears them.
#[inline(always)]
fn fold(sums: &mut [f32], totals: &mut [f64]) {
    for (sum, total) in sums.iter_mut().zip(totals) {
        *total += f64::from(*sum);
        *sum = 0.0;
    }
}

/// Writes `y = relu(affine(x))`: every element of `y`, which is as long as `x`.
pub(super) fn forward(x: &[f32], affine: &Affine<'_>, y: &mut [MaybeUninit<f32>]) {
    run(Forward { x, affine, y });
}

struct Forward<'a> {
    x: &'a [f32],
    affine: &'a Affine<'a>,
    y: &'a mut [MaybeUninit<f32>],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Affine { mean, scale, bias } = self.affine;
        let strip = mean.len();
        for (x, y) in self.x.chunks(strip).zip(self.y.chunks_mut(strip)) {
            let constants = mean.iter().zip(*scale).zip(*bias);
            for ((x, y), ((mean, scale), bias)) in x.iter().zip(y).zip(constants) {
                let affine = (x - mean) * scale + bias;
                y.write(gated(affine, affine));
            }
        }
    }
}

/// The part of `dx` that goes through the batch statistics: `(x − mean) · slope + offset`, each a strip.
pub(super) struct ThroughStatistics<'a> {
    pub(super) slope: &'a [f32],
    pub(super) offset: &'a [f32],
}

/// Writes `dx = scale · g − (x − mean) · slope − offset`, or `scale · g` without `through`, to every element of `dx`, which
/// is as long as `x` and `dy`.
pub(super) fn backward(
    x: &[f32],
    dy: &[f32],
    affine: &Affine<'_>,
    through: Option<&ThroughStatistics<'_>>,
    dx: &mut [MaybeUninit<f32>],
) {
    run(Backward {
        x,
        dy,
        affine,
        through,
        dx,
    });
}

struct Backward<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    affine: &'a Affine<'a>,
    through: Option<&'a ThroughStatistics<'a>>,
    dx: &'a mut [MaybeUninit<f32>],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Affine { mean, scale, bias } = self.affine;
        let strip = mean.len();
        let data = self.x.chunks(strip).zip(self.dy.chunks(strip));
        for ((x, dy), dx) in data.zip(self.dx.chunks_mut(strip)) {
            let data = x.iter().zip(dy).zip(dx);
            let affine = mean.iter().zip(*scale).zip(*bias);
            // A slope of 0 in place of none would turn an infinite value into NaN.
            let Some(ThroughStatistics { slope, offset }) = self.through else {
                for (((x, dy), dx), ((mean, scale), bias)) in data.zip(affine) {
                    dx.write(scale * gated((x - mean) * scale + bias, *dy));
                }
                continue;
            };
            let constants = affine.zip(slope.iter().zip(*offset));
            for (((x, dy), dx), (((mean, scale), bias), (slope, offset))) in data.zip(constants) {
                let centered = x - mean;
                let g = gated(centered * scale + bias, *dy);
                dx.write(scale * g - centered * slope - offset);
            }
        }
    }
}

/// Runs a kernel compiled for the instruction set of the machine.
fn run<K: Kernel>(kernel: K) -> K::Output {
    Isa::current().dispatch(Vectorized(kernel))
}

struct Vectorized<K>(K);

impl<K: Kernel> Kernel for Vectorized<K> {
    type Output = K::Output;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> K::Output {
        simd.vectorize(self.0)
    }
}
