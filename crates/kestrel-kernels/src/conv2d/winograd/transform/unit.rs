//! One-dimensional transforms of F(4, 3), for stride 1, at the points 0, ±1/√2, ±√2, ∞.
//!
//! With `Bᵀ` (6x6), `G` (6x3) and `Aᵀ` (4x6) a row of four outputs is `Aᵀ[(G g) ⊙ (Bᵀ d)]`; in two dimensions each matrix
//! is applied from both sides. These points keep every constant within 4 of 1, and halve the rounding error of the
//! usual 0, ±1, ±2, ∞ at the same cost.
//!
//! A tile at an edge, of which less than four outputs are wanted, does with fewer points: three outputs without -√2, by
//! F(3, 3), two or one without ±√2, by F(2, 3). Row `i` of `G` is `(1, p, p²) / Nᵢ`, `Nᵢ` being the product of `pᵢ - pⱼ` over the
//! other finite points; so that all tiles share the transformed weights, the rows of the smaller `Bᵀ` are multiplied with the
//! ratio of their own `Nᵢ` to the full one. Of `Aᵀ` the smaller ones are parts, but that ∞ adds to the last of their outputs.
//!
//! # Source
//! Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4; the points as in Barabasz
//! et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks" (2020).

use std::f32::consts::{FRAC_1_SQRT_2 as ALPHA, SQRT_2 as BETA};

use super::{Adjoint, Outputs, Points, Transform};
use crate::simd::Simd;

/// F(4, 3) of a convolution with stride 1. The order of the points: 0, ±1/√2, ∞, √2, -√2.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Unit;

/// `Bᵀ` of F(4, 3).
#[inline(always)]
fn four<S: Simd>(s: S, d: Points<S>) -> Points<S> {
    let (two, half, five_halves) = (s.splat(2.0), s.splat(0.5), s.splat(2.5));
    let (alpha, beta) = (s.splat(ALPHA), s.splat(BETA));
    let even_a = s.neg_mul_add(two, d[2], d[4]);
    let odd_a = s.neg_mul_add(two, d[1], d[3]);
    let even_b = s.neg_mul_add(half, d[2], d[4]);
    let odd_b = s.neg_mul_add(half, d[1], d[3]);
    [
        s.neg_mul_add(five_halves, d[2], s.add(d[0], d[4])),
        s.mul_add(alpha, odd_a, even_a),
        s.neg_mul_add(alpha, odd_a, even_a),
        s.neg_mul_add(five_halves, d[3], s.add(d[1], d[5])),
        s.mul_add(beta, odd_b, even_b),
        s.neg_mul_add(beta, odd_b, even_b),
    ]
}

/// `Bᵀ` of F(3, 3) at 0, ±1/√2, √2 and ∞.
#[inline(always)]
fn three<S: Simd>(s: S, d: Points<S>) -> Points<S> {
    let beta = s.splat(BETA);
    // `x³ - x/2`, the factor that 0 and ±1/√2 have in common, at `d1..d3` and at `d2..d4`.
    let odd = s.neg_mul_add(s.splat(0.5), d[1], d[3]);
    let even = s.neg_mul_add(s.splat(0.5), d[2], d[4]);
    let minus = s.mul(s.splat(-1.5), d[2]);
    [
        s.mul_add(beta, odd, s.neg_mul_add(s.splat(2.0), d[2], d[0])),
        s.mul_add(s.splat(1.5 * BETA), s.sub(d[3], d[1]), minus),
        s.mul_add(s.splat(0.5 * BETA), s.add(d[3], d[1]), minus),
        s.neg_mul_add(beta, odd, even),
        s.mul(s.splat(2.0 * BETA), odd),
        s.zero(),
    ]
}

/// `Bᵀ` of F(2, 3) at 0, ±1/√2 and ∞.
#[inline(always)]
fn two<S: Simd>(s: S, d: Points<S>) -> Points<S> {
    let even = s.mul(s.splat(-1.5), d[2]);
    let odd = s.splat(1.5 * ALPHA);
    [
        s.neg_mul_add(s.splat(2.0), d[2], d[0]),
        s.neg_mul_add(odd, d[1], even),
        s.mul_add(odd, d[1], even),
        s.neg_mul_add(s.splat(0.5), d[1], d[3]),
        s.zero(),
        s.zero(),
    ]
}

impl Transform for Unit {
    const TILE: usize = 4;
    const PATCH: usize = 6;
    const POINTS: usize = 6;
    const PLANES: usize = 6;
    const PLANE_OF: [usize; 6] = [0, 1, 2, 3, 4, 5];
    const OVERLAP: usize = 2;

    #[inline(always)]
    fn points(extent: usize) -> usize {
        extent.max(2) + 2
    }

    #[inline(always)]
    fn input<S: Simd>(s: S, d: Points<S>, extent: usize) -> Points<S> {
        match extent {
            4 => four(s, d),
            3 => three(s, d),
            _ => two(s, d),
        }
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: Points<S>, extent: usize) -> Outputs<S> {
        let (sum_a, difference_a) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
        let (sum_b, difference_b) = (s.add(m[4], m[5]), s.sub(m[4], m[5]));
        let twice_b = s.add(sum_b, sum_b);
        // ∞ adds to the last output.
        let [second, third, fourth] = match extent {
            4 => [s.mul(s.splat(BETA), difference_b), twice_b, m[3]],
            3 => [s.mul(s.splat(BETA), difference_b), s.add(twice_b, m[3]), s.zero()],
            _ => [m[3], s.zero(), s.zero()],
        };
        [
            s.add(s.add(m[0], sum_a), sum_b),
            s.mul_add(s.splat(ALPHA), difference_a, second),
            s.mul_add(s.splat(0.5), sum_a, third),
            s.mul_add(
                s.splat(0.5 * ALPHA),
                difference_a,
                s.mul_add(s.splat(2.0 * BETA), difference_b, fourth),
            ),
        ]
    }

    #[inline(always)]
    fn weight<S: Simd>(s: S, g: [S::V; 3]) -> Points<S> {
        let even_a = s.mul(s.splat(-2.0 / 3.0), s.mul_add(s.splat(0.5), g[2], g[0]));
        let odd_a = s.mul(s.splat(-2.0 / 3.0 * ALPHA), g[1]);
        let even_b = s.mul(s.splat(1.0 / 6.0), s.mul_add(s.splat(2.0), g[2], g[0]));
        let odd_b = s.mul(s.splat(BETA / 6.0), g[1]);
        [
            g[0],
            s.add(even_a, odd_a),
            s.sub(even_a, odd_a),
            g[2],
            s.add(even_b, odd_b),
            s.sub(even_b, odd_b),
        ]
    }
}

impl Adjoint for Unit {
    #[inline(always)]
    fn output_adjoint<S: Simd>(s: S, y: Outputs<S>, extent: usize) -> Points<S> {
        let (alpha, beta) = (s.splat(ALPHA), s.splat(BETA));
        let even_a = s.mul_add(s.splat(0.5), y[2], y[0]);
        let odd_a = s.mul_add(s.splat(0.5), y[3], y[1]);
        let even_b = s.mul_add(s.splat(2.0), y[2], y[0]);
        let odd_b = s.mul_add(s.splat(2.0), y[3], y[1]);
        let last = match extent {
            4 => y[3],
            3 => y[2],
            _ => y[1],
        };
        [
            y[0],
            s.mul_add(alpha, odd_a, even_a),
            s.neg_mul_add(alpha, odd_a, even_a),
            last,
            s.mul_add(beta, odd_b, even_b),
            s.neg_mul_add(beta, odd_b, even_b),
        ]
    }

    #[inline(always)]
    fn weight_adjoint<S: Simd>(s: S, m: Points<S>) -> [S::V; 3] {
        let (sum_a, difference_a) = (s.add(m[1], m[2]), s.sub(m[2], m[1]));
        let (sum_b, difference_b) = (s.add(m[4], m[5]), s.sub(m[4], m[5]));
        [
            s.mul_add(s.splat(-2.0 / 3.0), sum_a, s.mul_add(s.splat(1.0 / 6.0), sum_b, m[0])),
            s.mul_add(
                s.splat(2.0 / 3.0 * ALPHA),
                difference_a,
                s.mul(s.splat(BETA / 6.0), difference_b),
            ),
            s.mul_add(s.splat(-1.0 / 3.0), sum_a, s.mul_add(s.splat(1.0 / 3.0), sum_b, m[3])),
        ]
    }
}
