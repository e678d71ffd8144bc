//! The standard normal distribution on vectors of `f32`: its distribution function, and gelu and its slope made of it.
//!
//! ```text
//! Φ(−u) = ½ erfc(u / √2) = exp(−u² / 2) · t · P(t),  t = 1 / (1 + 0.32 u),  u ≥ 0
//! ```
//!
//! `P` has degree 9, and was fitted by least squares with weights moved to the largest errors (Lawson's iteration), to a
//! relative error of 3e-8 over all `u ≥ 0`. So the tail keeps its digits, and the slope has the exponential for nothing.
//! Abramowitz and Stegun 7.1.26 is the same form with fewer digits.

use crate::simd::Simd;

/// `1 + P0 u` is what `t` is the inverse of.
const P0: f32 = 0.32;

/// The coefficients of `P`, from the constant on.
const P: [f32; 10] = [
    0.127_661_53,
    0.127_660_95,
    0.114_622_36,
    0.087_829_07,
    0.058_654_13,
    -0.009_378_07,
    0.065_328_89,
    -0.146_708_32,
    0.095_407_72,
    -0.021_078_27,
];

/// `1 / √(2π)`.
const PHI_0: f32 = 0.398_942_3;

/// Below this, `exp` is too small for a normal number.
const LEAST: f32 = -87.0;

/// Added and taken away again, it rounds a number below 2²² to a whole one.
const ROUND: f32 = 12_582_912.0;

/// `ln 2` in two parts; the first has few bits, so that its product with a whole number is exact.
const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];

/// `1 / 6!`, and so on.
const TAYLOR: [f32; 7] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// `exp(x)` for `x ≤ 0`, at least `exp(-87)`; NaN stays NaN.
#[inline(always)]
fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.max(s.splat(LEAST), x);
    let round = s.splat(ROUND);
    let n = s.sub(s.mul_add(x, s.splat(std::f32::consts::LOG2_E), round), round);
    let r = s.neg_mul_add(n, s.splat(LN_2[0]), x);
    let r = s.neg_mul_add(n, s.splat(LN_2[1]), r);
    let mut sum = s.splat(TAYLOR[0]);
    for term in &TAYLOR[1..] {
        sum = s.mul_add(sum, r, s.splat(*term));
    }
    s.mul(sum, s.exp2_of_whole(n))
}

/// `Φ(x)` and `exp(−x² / 2)`.
#[inline(always)]
fn distribution<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let u = s.max(s.sub(s.zero(), x), x);
    let exp = exp(s, s.mul(s.mul(u, u), s.splat(-0.5)));
    let one = s.splat(1.0);
    let t = s.div(one, s.mul_add(u, s.splat(P0), one));
    let mut sum = s.splat(P[9]);
    for coefficient in P[..9].iter().rev() {
        sum = s.mul_add(sum, t, s.splat(*coefficient));
    }
    let tail = s.mul(exp, s.mul(t, sum));
    // 1 − tail above 0, and the tail itself below.
    let rest = s.gated(x, s.sub(one, s.add(tail, tail)));
    (s.add(tail, rest), exp)
}

/// `x · Φ(x)`.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    let (cumulative, _) = distribution(s, x);
    s.mul(x, cumulative)
}

/// `Φ(x) + x · φ(x)`, the derivative of [`gelu`].
#[inline(always)]
pub(crate) fn gelu_slope<S: Simd>(s: S, x: S::V) -> S::V {
    let (cumulative, exp) = distribution(s, x);
    s.mul_add(s.mul(x, s.splat(PHI_0)), exp, cumulative)
}
