//! Back through pooling, relu and batch norm's own statistics in one pass, where the sums that batch norm needs are known: windows of
//! 2x2 side by side, of an image that they cover.
//!
//! Which of the four was the largest is found again, for the pass reads all of them in any case.

use std::mem::MaybeUninit;

use candle_core::Tensor;
use rayon::prelude::*;

use super::OP;
use super::normalized::{row_pair, stream, taps, vectors, window};
use crate::Result;
use crate::conv2d::hooks::{Affine, Epilogue, ThroughStatistics, load_channels, through_statistics};
use crate::element::written;
use crate::max_pool2d::geometry::Geometry;
use crate::simd::{self, Isa, Kernel, Simd};
use crate::tape::Normalized;

/// Pairs of rows that a thread takes at once, at most.
const PAIRS: usize = 16;

/// The gradient of `whole`, the convolution's output: each gated gradient `g` at the pixel that its window's maximum came from, and 0 at
/// the others, through batch norm's statistics.
///
/// # Shapes
/// `whole`, which is `through.x` too, `[N, H, W, C]` with even `H` and `W`, as the result; `g` `[N, H/2, W/2, C]`; `normalized`
/// has the constants of both.
///
/// # Errors
/// Where `whole` has another rank or no window.
pub(crate) fn scatter_through(
    whole: &Tensor,
    normalized: &Normalized,
    through: &ThroughStatistics<'_>,
    g: &[f32],
) -> Result<Vec<f32>> {
    let geometry = Geometry::channels_last(OP, whole, 2, 2, 0)?;
    Ok(Isa::current().dispatch(ScatterThrough {
        geometry: &geometry,
        affine: normalized.affine(),
        through,
        g,
    }))
}

#[derive(Clone, Copy)]
struct ScatterThrough<'a> {
    geometry: &'a Geometry,
    affine: Affine<'a>,
    through: &'a ThroughStatistics<'a>,
    g: &'a [f32],
}

impl Kernel for ScatterThrough<'_> {
    type Output = Vec<f32>;

    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let Geometry {
            batch,
            height,
            width,
            channels,
            ..
        } = *self.geometry;
        assert!(
            height.is_multiple_of(2) && width.is_multiple_of(2),
            "expected images of even sides, got {height}x{width}"
        );
        let len = batch * height * self.geometry.in_row();
        self.affine.check(channels);
        self.through.check(channels, len);
        assert_eq!(4 * self.g.len(), len, "expected gradients [N, P, Q, C]");
        let fill = |dx: &mut [MaybeUninit<f32>]| {
            let streams = simd::streams::<S>(dx.as_ptr().cast(), dx.len(), channels);
            let pairs = dx.par_chunks_mut(2 * self.geometry.in_row());
            pairs.with_max_len(PAIRS).enumerate().for_each(|(row, pair)| {
                let (x, g) = (
                    row_pair(self.geometry, self.through.x, row),
                    &self.g[row * self.geometry.out_row()..],
                );
                s.vectorize(RowPair {
                    pass: self,
                    x,
                    g,
                    pair,
                    streams,
                });
            });
        };
        // SAFETY: `RowPair` writes the whole of its pair, and even sides leave no row or column over.
        unsafe { written(len, fill) }
    }
}

/// A row of windows: `g` begins with `[Q, C]`, `x` and `pair` are `[2, W, C]`. Invariant: `streams` is what [`simd::streams`] says of all
/// pairs together.
struct RowPair<'a> {
    pass: ScatterThrough<'a>,
    x: &'a [f32],
    g: &'a [f32],
    pair: &'a mut [MaybeUninit<f32>],
    streams: bool,
}

impl Kernel for RowPair<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            pass:
                ScatterThrough {
                    geometry,
                    affine,
                    through,
                    ..
                },
            x,
            g,
            pair,
            streams,
        } = self;
        // Pixel by pixel, in the order of memory: the constants are in the first cache, the pixels come from afar.
        for q in 0..geometry.out_width {
            for (channel, lanes) in vectors::<S>(geometry.channels) {
                let mut at = taps(geometry, q);
                for tap in &mut at {
                    *tap += channel;
                }
                let (z, centered, maximum) = window(s, affine.channels(s, channel, lanes), x, at, lanes);
                let [_, constants @ ..] = through.channels(s, channel, lanes);
                // Until a pixel has taken it: the first maximum does.
                let mut left = load_channels(s, g, q * geometry.channels + channel, lanes);
                for i in 0..4 {
                    let gradient = s.where_equal(z[i], maximum, left, s.zero());
                    left = s.where_equal(z[i], maximum, s.zero(), left);
                    let dx = through_statistics(s, constants, gradient, centered[i]);
                    if streams {
                        // SAFETY: what streams is aligned to vectors; `at[i]` is a multiple of one, as are rows, pixels and the
                        // first of the channels.
                        unsafe { stream(s, pair, at[i], dx) };
                    } else {
                        simd::store(s, &mut pair[at[i]..][..lanes], dx);
                    }
                }
            }
        }
        if streams {
            s.fence();
        }
    }
}
