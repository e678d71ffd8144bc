//! Pooling of a normalised and rectified tensor that is not written: windows of 2x2 side by side.
//!
//! Forward, each pixel is normalised as it is read. Backward, the gradient passes through pooling and relu at once, and the
//! sums that batch norm needs are taken on the way: the pixels are read for them in any case, so the maximum is found again
//! instead of being kept.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use crate::conv2d::hooks::{Affine, load_channels};
use crate::element::written;
use crate::max_pool2d::geometry::Geometry;
use crate::simd::{self, Isa, Kernel, Simd};
use crate::tape::{Gated, Normalized};

/// `relu(affine(x))` of each window's maximum.
pub(super) fn maxima(g: &Geometry, normalized: &Normalized, x: &[f32]) -> Vec<f32> {
    let affine = normalized.affine();
    Isa::current().dispatch(Maxima { g, affine, x })
}

/// Each window's gradient at the pixel that its maximum came from, and the sums of the gated gradient.
pub(super) fn scatter(g: &Geometry, normalized: &Normalized, x: &[f32], dy: &[f32]) -> Gated {
    let affine = normalized.affine();
    Isa::current().dispatch(Scatter { g, affine, x, dy })
}

/// Panics unless the slices have the geometry's sizes: what the kernels' reads and writes rest on.
fn check(g: &Geometry, affine: &Affine<'_>, x: &[f32]) {
    affine.check(g.channels);
    assert_eq!(x.len(), g.batch * g.height * g.in_row(), "expected images [N, H, W, C]");
}

/// Floats to the four pixels of window `q`, from the start of its pair of rows.
#[inline(always)]
pub(super) fn taps(g: &Geometry, q: usize) -> [usize; 4] {
    let left = 2 * q * g.channels;
    [
        left,
        left + g.channels,
        g.in_row() + left,
        g.in_row() + left + g.channels,
    ]
}

/// The two rows of pixels, `[2, W, C]`, under a row of windows, counted over all images.
pub(super) fn row_pair<'a>(g: &Geometry, x: &'a [f32], row: usize) -> &'a [f32] {
    let top = row / g.out_height * g.height + 2 * (row % g.out_height);
    &x[top * g.in_row()..][..2 * g.in_row()]
}

/// The vectors of a pixel's channels: where each begins, and its lanes.
#[inline(always)]
pub(super) fn vectors<S: Simd>(channels: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..channels)
        .step_by(S::LANES)
        .map(move |channel| (channel, S::LANES.min(channels - channel)))
}

/// Stores a vector at `out[at..]`, past the caches.
///
/// # Safety
/// `&out[at]` is aligned to a vector.
#[inline(always)]
pub(super) unsafe fn stream<S: Simd>(s: S, out: &mut [MaybeUninit<f32>], at: usize, value: S::V) {
    let out = out[at..at + S::LANES].as_mut_ptr().cast();
    // SAFETY: the slice has LANES floats, aligned as the caller promises.
    unsafe { s.stream(out, value) };
}

/// The pixels of a window normalised, what they were less their center, and the maximum.
#[inline(always)]
pub(super) fn window<S: Simd>(
    s: S,
    constants: [S::V; 3],
    x: &[f32],
    taps: [usize; 4],
    lanes: usize,
) -> ([S::V; 4], [S::V; 4], S::V) {
    let [center, scale, shift] = constants;
    // Loops, not `map`: its closures may not be inlined, and are then compiled without the instruction set.
    let (mut centered, mut z) = ([s.zero(); 4], [s.zero(); 4]);
    for i in 0..4 {
        centered[i] = s.sub(load_channels(s, x, taps[i], lanes), center);
        z[i] = s.mul_add(centered[i], scale, shift);
    }
    let maximum = s.maximum(s.maximum(z[0], z[1]), s.maximum(z[2], z[3]));
    (z, centered, maximum)
}

struct Maxima<'a> {
    g: &'a Geometry,
    affine: Affine<'a>,
    x: &'a [f32],
}

impl Kernel for Maxima<'_> {
    type Output = Vec<f32>;

    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let Self { g, affine, x } = self;
        check(g, &affine, x);
        let fill = |y: &mut [MaybeUninit<f32>]| {
            y.par_chunks_mut(g.out_row()).enumerate().for_each(|(row, y)| {
                let x = row_pair(g, x, row);
                s.vectorize(OutputRow { g, affine, x, y });
            });
        };
        // SAFETY: `OutputRow` writes every maximum of its row, and the rows make up the whole.
        unsafe { written(g.batch * g.out_height * g.out_row(), fill) }
    }
}

/// One row of windows: `y` is `[Q, C]`, and is wholly written; `x` its pair of rows.
struct OutputRow<'a> {
    g: &'a Geometry,
    affine: Affine<'a>,
    x: &'a [f32],
    y: &'a mut [MaybeUninit<f32>],
}

impl Kernel for OutputRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { g, affine, x, y } = self;
        for (channel, lanes) in vectors::<S>(g.channels) {
            let constants = affine.channels(s, channel, lanes);
            for q in 0..g.out_width {
                let taps = taps(g, q).map(|at| at + channel);
                let (_, _, maximum) = window(s, constants, x, taps, lanes);
                let y = &mut y[q * g.channels + channel..][..lanes];
                simd::store(s, y, s.max(s.zero(), maximum));
            }
        }
    }
}

struct Scatter<'a> {
    g: &'a Geometry,
    affine: Affine<'a>,
    x: &'a [f32],
    dy: &'a [f32],
}

impl Kernel for Scatter<'_> {
    type Output = Gated;

    fn run<S: Simd>(self, s: S) -> Gated {
        let Self { g, affine, x, dy } = self;
        check(g, &affine, x);
        let (in_image, out_image) = (g.height * g.in_row(), g.out_height * g.out_row());
        assert_eq!(dy.len(), g.batch * out_image, "expected gradients [N, P, Q, C]");
        let mut by_image = Vec::new();
        let fill = |dx: &mut [MaybeUninit<f32>]| {
            let streams = simd::streams::<S>(dx.as_ptr().cast(), dx.len(), g.channels);
            by_image = dx
                .par_chunks_mut(in_image)
                .zip(x.par_chunks(in_image).zip(dy.par_chunks(out_image)))
                .map(|(dx, (x, dy))| {
                    s.vectorize(ScatterImage {
                        g,
                        affine,
                        x,
                        dy,
                        dx,
                        streams,
                    })
                })
                .collect::<Vec<Vec<f64>>>();
        };
        // SAFETY: `ScatterImage` writes the whole of its image, and there is one for each: by the assertions all three slices
        // have as many.
        let dx = unsafe { written(g.batch * in_image, fill) };
        let mut sums = vec![0.0; 2 * g.channels];
        for image in by_image {
            sums.iter_mut().zip(image).for_each(|(sum, term)| *sum += term);
        }
        Gated::new(dx, sums)
    }
}

/// One image: `dy` is `[P, Q, C]`, `x` and `dx` are `[H, W, C]`. Invariant: `streams` is what [`simd::streams`] says of all
/// images' `dx`.
struct ScatterImage<'a> {
    g: &'a Geometry,
    affine: Affine<'a>,
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [MaybeUninit<f32>],
    streams: bool,
}

impl Kernel for ScatterImage<'_> {
    /// `Σ g` by channel, then `Σ g (x − center)`.
    type Output = Vec<f64>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f64> {
        let Self {
            g,
            affine,
            x,
            dy,
            dx,
            streams,
        } = self;
        let mut totals = vec![0.0; 2 * g.channels];
        let (pairs, below) = dx.split_at_mut(g.out_height * 2 * g.in_row());
        below.fill(MaybeUninit::new(0.0));
        let covered = 2 * g.out_width * g.channels;
        for (row, pair) in pairs.chunks_exact_mut(2 * g.in_row()).enumerate() {
            pair[covered..g.in_row()].fill(MaybeUninit::new(0.0));
            pair[g.in_row() + covered..].fill(MaybeUninit::new(0.0));
            let mut scatter = ScatterRow {
                g,
                affine,
                x: row_pair(g, x, row),
                dy: &dy[row * g.out_row()..][..g.out_row()],
                pair,
                streams,
            };
            for (channel, lanes) in vectors::<S>(g.channels) {
                let sums = scatter.run(s, channel..channel + lanes);
                for (totals, sums) in totals.chunks_exact_mut(g.channels).zip(sums) {
                    let mut values = [MaybeUninit::new(0.0); simd::MAX_LANES];
                    simd::store(s, &mut values[..lanes], sums);
                    for (total, value) in totals[channel..channel + lanes].iter_mut().zip(values) {
                        // SAFETY: initialised above.
                        *total += f64::from(unsafe { value.assume_init() });
                    }
                }
            }
        }
        if streams {
            s.fence();
        }
        totals
    }
}

/// A row of windows: `dy` is `[Q, C]`, `x` and `pair` are `[2, W, C]`. Invariant: [`ScatterImage`]'s.
struct ScatterRow<'a> {
    g: &'a Geometry,
    affine: Affine<'a>,
    x: &'a [f32],
    dy: &'a [f32],
    pair: &'a mut [MaybeUninit<f32>],
    streams: bool,
}

impl ScatterRow<'_> {
    /// Writes a vector of channels of the row; returns the two sums.
    #[inline(always)]
    fn run<S: Simd>(&mut self, s: S, channels: Range<usize>) -> [S::V; 2] {
        let lanes = channels.len();
        let constants = self.affine.channels(s, channels.start, lanes);
        let mut sums = [s.zero(); 2];
        for q in 0..self.g.out_width {
            let taps = taps(self.g, q).map(|at| at + channels.start);
            let (z, centered, maximum) = window(s, constants, self.x, taps, lanes);
            let dy = load_channels(s, self.dy, q * self.g.channels + channels.start, lanes);
            // Until a pixel has taken it: the first maximum does.
            let mut left = s.gated(maximum, dy);
            sums[0] = s.add(sums[0], left);
            for i in 0..4 {
                let gradient = s.where_equal(z[i], maximum, left, s.zero());
                left = s.where_equal(z[i], maximum, s.zero(), left);
                sums[1] = s.mul_add(gradient, centered[i], sums[1]);
                if self.streams {
                    // SAFETY: what streams is aligned to vectors; `taps[i]` is a multiple of one, as are rows, pixels and the first
                    // of the channels.
                    unsafe { stream(s, self.pair, taps[i], gradient) };
                } else {
                    simd::store(s, &mut self.pair[taps[i]..][..lanes], gradient);
                }
            }
        }
        sums
    }
}
