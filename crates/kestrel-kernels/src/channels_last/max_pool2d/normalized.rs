//! Pooling of a normalised and rectified tensor that is not written: windows of 2x2 side by side.
//!
//! Forward, each pixel is normalised as it is read. Backward, the gradient passes through pooling and relu at once, and the
//! sums that batch norm needs are taken on the way.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::element::written;
use crate::max_pool2d::geometry::Geometry;
use crate::simd::{Isa, Kernel, MAX_LANES, Simd};
use crate::tape::{Gated, Normalized};

/// The choice of a window whose maximum the relu has closed.
const CLOSED: u8 = 4;

/// Channels of a loop whose length the compiler knows.
const LANES: usize = MAX_LANES;

/// `relu(affine(x))` of each window's maximum, and the tap that it came from.
pub(super) fn maxima(g: &Geometry, normalized: &Normalized, x: &[f32]) -> (Vec<f32>, Vec<u8>) {
    Isa::current().dispatch(Maxima { g, normalized, x })
}

/// Each window's gradient at the pixel that its maximum came from, and the sums of the gated gradient.
pub(super) fn scatter(g: &Geometry, normalized: &Normalized, x: &[f32], choices: &[u8], dy: &[f32]) -> Gated {
    Isa::current().dispatch(Scatter {
        g,
        normalized,
        x,
        choices,
        dy,
    })
}

struct Maxima<'a> {
    g: &'a Geometry,
    normalized: &'a Normalized,
    x: &'a [f32],
}

impl Kernel for Maxima<'_> {
    type Output = (Vec<f32>, Vec<u8>);

    fn run<S: Simd>(self, s: S) -> Self::Output {
        let Self { g, normalized, x } = self;
        assert_eq!(x.len(), g.batch * g.height * g.in_row(), "expected images [N, H, W, C]");
        let len = g.batch * g.out_height * g.out_row();
        let mut choices = Vec::new();
        let fill = |y: &mut [MaybeUninit<f32>]| {
            let fill = |choices: &mut [MaybeUninit<u8>]| {
                let rows = y.par_chunks_mut(g.out_row()).zip(choices.par_chunks_mut(g.out_row()));
                rows.enumerate().for_each(|(row, (y, choices))| {
                    let x = row_pair(g, x, row);
                    s.vectorize(OutputRow {
                        g,
                        normalized,
                        x,
                        y,
                        choices,
                    });
                });
            };
            // SAFETY: `OutputRow` writes every choice of its row, and the rows make up the whole.
            choices = unsafe { written(len, fill) };
        };
        // SAFETY: `OutputRow` writes every maximum of its row, and the rows make up the whole.
        let y = unsafe { written(len, fill) };
        (y, choices)
    }
}

/// The two rows of pixels, `[2, W, C]`, under a row of windows, counted over all images.
fn row_pair<'a, T>(g: &Geometry, x: &'a [T], row: usize) -> &'a [T] {
    let top = row / g.out_height * g.height + 2 * (row % g.out_height);
    &x[top * g.in_row()..][..2 * g.in_row()]
}

/// One row of windows: `y` and `choices` are `[Q, C]`, and are wholly written.
struct OutputRow<'a> {
    g: &'a Geometry,
    normalized: &'a Normalized,
    x: &'a [f32],
    y: &'a mut [MaybeUninit<f32>],
    choices: &'a mut [MaybeUninit<u8>],
}

impl Kernel for OutputRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let c = self.g.channels;
        let windows = self.y.chunks_exact_mut(c).zip(self.choices.chunks_exact_mut(c));
        for (q, (y, choices)) in windows.enumerate() {
            let taps = taps(self.g, q).map(|at| &self.x[at..][..c]);
            let mut channel = 0;
            while channel + LANES <= c {
                choose::<LANES>(self.normalized, taps, channel, y, choices);
                channel += LANES;
            }
            while channel < c {
                choose::<1>(self.normalized, taps, channel, y, choices);
                channel += 1;
            }
        }
    }
}

/// Where the four pixels of window `q` begin in its pair of rows.
#[inline(always)]
fn taps(g: &Geometry, q: usize) -> [usize; 4] {
    let left = 2 * q * g.channels;
    [
        left,
        left + g.channels,
        g.in_row() + left,
        g.in_row() + left + g.channels,
    ]
}

/// `N` values from `at` on.
#[inline(always)]
fn lanes<const N: usize, T: Copy + Default>(values: &[T], at: usize) -> [T; N] {
    let mut lanes = [T::default(); N];
    lanes.copy_from_slice(&values[at..at + N]);
    lanes
}

/// The maximum of four pixels and its tap, for `N` channels.
#[inline(always)]
fn choose<const N: usize>(
    normalized: &Normalized,
    pixels: [&[f32]; 4],
    channel: usize,
    y: &mut [MaybeUninit<f32>],
    choices: &mut [MaybeUninit<u8>],
) {
    let center: [f32; N] = lanes(&normalized.center, channel);
    let scale: [f32; N] = lanes(&normalized.scale, channel);
    let shift: [f32; N] = lanes(&normalized.shift, channel);
    let mut maximum = [0.0; N];
    let mut chosen = [0u32; N];
    for (tap, pixel) in pixels.into_iter().enumerate() {
        let x: [f32; N] = lanes(pixel, channel);
        for i in 0..N {
            let z = (x[i] - center[i]) * scale[i] + shift[i];
            // PyTorch's test: a later tap takes over if it is larger or NaN.
            let takes = (tap == 0) | (z > maximum[i]) | z.is_nan();
            maximum[i] = if takes { z } else { maximum[i] };
            chosen[i] = if takes { tap as u32 } else { chosen[i] };
        }
    }
    let (y, choices) = (&mut y[channel..channel + N], &mut choices[channel..channel + N]);
    for i in 0..N {
        let closed = maximum[i] <= 0.0;
        y[i].write(if closed { 0.0 } else { maximum[i] });
        choices[i].write(if closed { CLOSED } else { chosen[i] as u8 });
    }
}

struct Scatter<'a> {
    g: &'a Geometry,
    normalized: &'a Normalized,
    x: &'a [f32],
    choices: &'a [u8],
    dy: &'a [f32],
}

impl Kernel for Scatter<'_> {
    type Output = Gated;

    fn run<S: Simd>(self, s: S) -> Gated {
        let Self {
            g,
            normalized,
            x,
            choices,
            dy,
        } = self;
        let (in_image, out_image) = (g.height * g.in_row(), g.out_height * g.out_row());
        assert_eq!(x.len(), g.batch * in_image, "expected images [N, H, W, C]");
        let outputs = [choices.len(), dy.len()];
        assert_eq!(outputs, [g.batch * out_image; 2], "expected outputs [N, P, Q, C]");
        let mut by_image = Vec::new();
        let fill = |dx: &mut [MaybeUninit<f32>]| {
            by_image = dx
                .par_chunks_mut(in_image)
                .zip(x.par_chunks(in_image))
                .zip(choices.par_chunks(out_image).zip(dy.par_chunks(out_image)))
                .map(|((dx, x), (choices, dy))| {
                    s.vectorize(ScatterImage {
                        g,
                        normalized,
                        x,
                        choices,
                        dy,
                        dx,
                    })
                })
                .collect::<Vec<Vec<f64>>>();
        };
        // SAFETY: `ScatterImage` writes the whole of its image, and there is one for each: by the assertions all four slices
        // have as many.
        let dx = unsafe { written(g.batch * in_image, fill) };
        let mut sums = vec![0.0; 2 * g.channels];
        for image in by_image {
            sums.iter_mut().zip(image).for_each(|(sum, term)| *sum += term);
        }
        Gated::new(dx, sums)
    }
}

/// One image: `choices` and `dy` are `[P, Q, C]`, `x` and `dx` `[H, W, C]`.
struct ScatterImage<'a> {
    g: &'a Geometry,
    normalized: &'a Normalized,
    x: &'a [f32],
    choices: &'a [u8],
    dy: &'a [f32],
    dx: &'a mut [MaybeUninit<f32>],
}

impl Kernel for ScatterImage<'_> {
    /// `Σ g` by channel, then `Σ g (x − center)`.
    type Output = Vec<f64>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Vec<f64> {
        let Self {
            g,
            normalized,
            x,
            choices,
            dy,
            dx,
        } = self;
        let c = g.channels;
        let mut totals = vec![0.0; 2 * c];
        let mut sums = vec![0.0; 2 * c];
        let (pairs, below) = dx.split_at_mut(g.out_height * 2 * g.in_row());
        below.fill(MaybeUninit::new(0.0));
        let windows = choices.chunks_exact(g.out_row()).zip(dy.chunks_exact(g.out_row()));
        for (row, (pair, (choices, dy))) in pairs.chunks_exact_mut(2 * g.in_row()).zip(windows).enumerate() {
            let x = row_pair(g, x, row);
            let covered = 2 * g.out_width * c;
            pair[covered..g.in_row()].fill(MaybeUninit::new(0.0));
            pair[g.in_row() + covered..].fill(MaybeUninit::new(0.0));
            let (sum, products) = sums.split_at_mut(c);
            for (q, (choices, dy)) in choices.chunks_exact(c).zip(dy.chunks_exact(c)).enumerate() {
                let mut window = Window {
                    taps: taps(g, q),
                    x,
                    choices,
                    dy,
                    center: &normalized.center,
                    pair: &mut *pair,
                    sum: &mut *sum,
                    products: &mut *products,
                };
                let mut channel = 0;
                while channel + LANES <= c {
                    window.scatter::<LANES>(channel);
                    channel += LANES;
                }
                while channel < c {
                    window.scatter::<1>(channel);
                    channel += 1;
                }
            }
            for (total, sum) in totals.iter_mut().zip(&mut sums) {
                *total += f64::from(*sum);
                *sum = 0.0;
            }
        }
        totals
    }
}

/// One window: `choices` and `dy` are `[C]`, the pair of rows `[2, W, C]`.
struct Window<'a> {
    taps: [usize; 4],
    x: &'a [f32],
    choices: &'a [u8],
    dy: &'a [f32],
    center: &'a [f32],
    pair: &'a mut [MaybeUninit<f32>],
    sum: &'a mut [f32],
    products: &'a mut [f32],
}

impl Window<'_> {
    #[inline(always)]
    fn scatter<const N: usize>(&mut self, channel: usize) {
        let dy: [f32; N] = lanes(self.dy, channel);
        let choices: [u8; N] = lanes(self.choices, channel);
        let center: [f32; N] = lanes(self.center, channel);
        let mut sum: [f32; N] = lanes(self.sum, channel);
        let mut products: [f32; N] = lanes(self.products, channel);
        for (tap, at) in self.taps.into_iter().enumerate() {
            let x: [f32; N] = lanes(self.x, at + channel);
            let mut g = [0.0; N];
            for i in 0..N {
                // Compared as 32 bits, like the lanes that it decides.
                let gradient = if u32::from(choices[i]) == tap as u32 {
                    dy[i]
                } else {
                    0.0
                };
                products[i] += gradient * (x[i] - center[i]);
                sum[i] += gradient;
                g[i] = gradient;
            }
            self.pair[at + channel..at + channel + N].write_copy_of_slice(&g);
        }
        self.sum[channel..channel + N].copy_from_slice(&sum);
        self.products[channel..channel + N].copy_from_slice(&products);
    }
}
