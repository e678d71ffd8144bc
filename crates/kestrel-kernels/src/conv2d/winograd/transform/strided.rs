//! One-dimensional transforms for stride 2 with padding 1: two outputs from five products instead of six.
//!
//! Taps 0 and 2 meet the same half of the inputs, every second one, as a convolution of two taps with stride 1, for which
//! F(2, 2) takes three products for two outputs; tap 1 meets the other half. With inputs `d0..d4` under a tile:
//!
//! ```text
//! y0 = d0 g0 + d1 g1 + d2 g2 = (d0 - d2) g0 + d2 (g0 + g2) + d1 g1
//! y1 = d2 g0 + d3 g1 + d4 g2 = (d4 - d2) g2 + d2 (g0 + g2) + d3 g1
//! ```
//!
//! All constants are 1, so the rounding error is near that of direct products. The gradient of the inputs is made of the
//! same products: gradients `e0..e2` of three outputs give those of four inputs.
//!
//! # Source
//! Lavin and Gray (2016), section 4, on each phase of the inputs; the split into phases is that of polyphase filters.

use super::{Adjoint, Outputs, Points, Transform};
use crate::simd::Simd;

/// The points' order: what the first output needs comes first.
const PLANE_OF: [usize; 6] = [0, 1, 2, 2, 3, 0];

/// A convolution with stride 2.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Strided;

/// The way of its gradient back to the inputs; the weights are turned.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct StridedBack;

/// `[g0, g0 + g2, g1, g2]`.
#[inline(always)]
fn planes<S: Simd>(s: S, g: [S::V; 3]) -> Points<S> {
    [g[0], s.add(g[0], g[2]), g[1], g[2], s.zero(), s.zero()]
}

impl Transform for Strided {
    const TILE: usize = 2;
    const PATCH: usize = 5;
    const POINTS: usize = 5;
    const PLANES: usize = 4;
    const PLANE_OF: [usize; 6] = PLANE_OF;
    const OVERLAP: usize = 1;

    #[inline(always)]
    fn points(extent: usize) -> usize {
        if extent > 1 { 5 } else { 3 }
    }

    #[inline(always)]
    fn input<S: Simd>(s: S, d: Points<S>, _extent: usize) -> Points<S> {
        [s.sub(d[0], d[2]), d[2], d[1], d[3], s.sub(d[4], d[2]), s.zero()]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: Points<S>, _extent: usize) -> Outputs<S> {
        [
            s.add(s.add(m[0], m[1]), m[2]),
            s.add(s.add(m[4], m[1]), m[3]),
            s.zero(),
            s.zero(),
        ]
    }

    #[inline(always)]
    fn weight<S: Simd>(s: S, g: [S::V; 3]) -> Points<S> {
        planes(s, g)
    }
}

impl Adjoint for Strided {
    #[inline(always)]
    fn output_adjoint<S: Simd>(s: S, y: Outputs<S>, _extent: usize) -> Points<S> {
        [y[0], s.add(y[0], y[1]), y[0], y[1], y[1], s.zero()]
    }

    #[inline(always)]
    fn weight_adjoint<S: Simd>(s: S, m: Points<S>) -> [S::V; 3] {
        [s.add(m[0], m[1]), s.add(m[2], m[3]), s.add(m[4], m[1])]
    }
}

impl Transform for StridedBack {
    const TILE: usize = 4;
    const PATCH: usize = 3;
    const POINTS: usize = 5;
    const PLANES: usize = 4;
    const PLANE_OF: [usize; 6] = PLANE_OF;
    const OVERLAP: usize = 1;

    #[inline(always)]
    fn points(extent: usize) -> usize {
        if extent > 2 { 5 } else { 3 }
    }

    #[inline(always)]
    fn input<S: Simd>(s: S, e: Points<S>, _extent: usize) -> Points<S> {
        [s.sub(e[0], e[1]), e[1], e[0], e[1], s.sub(e[2], e[1]), s.zero()]
    }

    /// Of inputs at even places tap 1 alone, of those at odd places taps 0 and 2.
    #[inline(always)]
    fn output<S: Simd>(s: S, m: Points<S>, _extent: usize) -> Outputs<S> {
        [m[2], s.add(m[0], m[1]), m[3], s.add(m[4], m[1])]
    }

    #[inline(always)]
    fn weight<S: Simd>(s: S, g: [S::V; 3]) -> Points<S> {
        planes(s, g)
    }
}
