//! The passes over the windows on slices: means forward, shares of the gradient backward. A row is a piece of work.
//!
//! A sum over rectangles is done one axis after the other, as in the channels-first kernel and in its order: first each
//! column of a row of windows, all channels in one go, then each window. The loops are left to the compiler's
//! vectoriser, inside a function that enables the processor's instruction set.

use crate::avg_pool2d::geometry::{Axis, Geometry};
use crate::simd::{Isa, Kernel, Simd};
use rayon::prelude::*;

/// Input elements below which rows are not shared out one by one.
const BLOCK: usize = 1 << 13;

/// The mean of each window: `x` is `[N, H, W, C]`, `y` `[N, P, Q, C]`; all of `y` is written.
pub(crate) fn forward(g: &Geometry, x: &[f32], y: &mut [f32]) {
    check(g, x, y);
    Isa::current().dispatch(Forward { g, x, y });
}

/// The gradient of the input: `dy` is `[N, P, Q, C]`, `dx` `[N, H, W, C]`; all of `dx` is written.
pub(crate) fn backward(g: &Geometry, dy: &[f32], dx: &mut [f32]) {
    check(g, dx, dy);
    Isa::current().dispatch(Backward { g, dy, dx });
}

fn check(g: &Geometry, images: &[f32], means: &[f32]) {
    assert_eq!(
        images.len(),
        g.batch * g.pixels() * g.channels,
        "expected images [N, H, W, C]"
    );
    assert_eq!(
        means.len(),
        g.batch * g.outputs() * g.channels,
        "expected means [N, P, Q, C]"
    );
}

struct Forward<'a> {
    g: &'a Geometry,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    fn run<S: Simd>(self, s: S) {
        let Self { g, x, y } = self;
        let (in_row, out_row) = (g.columns.inputs() * g.channels, g.columns.outputs() * g.channels);
        // The work of a row of windows is in the pixels that they cover.
        let covered = g.rows.inputs().div_ceil(g.rows.outputs()) * in_row;
        y.par_chunks_mut(out_row)
            .enumerate()
            .with_min_len((BLOCK / covered.max(out_row)).max(1))
            .for_each_init(
                || vec![0.0; in_row],
                |sums, (row, y)| {
                    let (n, p) = (row / g.rows.outputs(), row % g.rows.outputs());
                    let rows = &g.rows.windows[p];
                    let top = n * g.rows.inputs();
                    s.vectorize(RowOfMeans {
                        x: &x[(top + rows.start) * in_row..(top + rows.end) * in_row],
                        sums,
                        y,
                        columns: &g.columns,
                        row_count: g.rows.counts[p],
                        channels: g.channels,
                    });
                },
            );
    }
}

/// One row of windows: `x` is the rows of pixels that it covers, `y` is `[Q, C]`.
struct RowOfMeans<'a> {
    x: &'a [f32],
    /// Room for a row of pixels, overwritten.
    sums: &'a mut [f32],
    y: &'a mut [f32],
    columns: &'a Axis,
    row_count: usize,
    channels: usize,
}

impl Kernel for RowOfMeans<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self {
            x,
            sums,
            y,
            columns,
            row_count,
            channels,
        } = self;
        let rows = x.len() / sums.len();
        let sums = if rows == 1 {
            x
        } else {
            let mut rows = x.chunks_exact(sums.len());
            if let (Some(a), Some(b)) = (rows.next(), rows.next()) {
                for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                    *sum = a + b;
                }
            }
            rows.for_each(|row| add(sums, row));
            &*sums
        };
        for ((y, window), count) in y.chunks_exact_mut(channels).zip(&columns.windows).zip(&columns.counts) {
            let count = (row_count * count) as f32;
            let pixels = &sums[window.start * channels..window.end * channels];
            match window.len() {
                1 => {
                    for (y, a) in y.iter_mut().zip(pixels) {
                        *y = a / count;
                    }
                }
                2 => {
                    let (a, b) = pixels.split_at(channels);
                    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
                        *y = (a + b) / count;
                    }
                }
                _ => {
                    y.fill(0.0);
                    pixels.chunks_exact(channels).for_each(|pixel| add(y, pixel));
                    for y in y {
                        *y /= count;
                    }
                }
            }
        }
    }
}

/// `to += from`.
#[inline(always)]
fn add(to: &mut [f32], from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

struct Backward<'a> {
    g: &'a Geometry,
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    fn run<S: Simd>(self, s: S) {
        let Self { g, dy, dx } = self;
        let (in_row, out_row) = (g.columns.inputs() * g.channels, g.columns.outputs() * g.channels);
        dx.par_chunks_mut(in_row)
            .enumerate()
            .with_min_len((BLOCK / in_row.max(out_row)).max(1))
            .for_each_init(
                || vec![0.0; out_row],
                |sums, (row, dx)| {
                    let (n, h) = (row / g.rows.inputs(), row % g.rows.inputs());
                    let windows = &g.rows.windows_of[h];
                    let top = n * g.rows.outputs();
                    s.vectorize(RowOfShares {
                        dy: &dy[(top + windows.start) * out_row..(top + windows.end) * out_row],
                        row_counts: &g.rows.counts[windows.clone()],
                        sums,
                        dx,
                        columns: &g.columns,
                        channels: g.channels,
                    });
                },
            );
    }
}

/// One row of pixels: `dy` is the rows of windows that cover it, `dx` is `[W, C]`.
struct RowOfShares<'a> {
    dy: &'a [f32],
    row_counts: &'a [usize],
    /// Room for a row of windows, overwritten.
    sums: &'a mut [f32],
    dx: &'a mut [f32],
    columns: &'a Axis,
    channels: usize,
}

impl Kernel for RowOfShares<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self {
            dy,
            row_counts,
            sums,
            dx,
            columns,
            channels,
        } = self;
        sums.fill(0.0);
        for (dy, row_count) in dy.chunks_exact(sums.len()).zip(row_counts) {
            let windows = sums.chunks_exact_mut(channels).zip(dy.chunks_exact(channels));
            for ((sum, dy), count) in windows.zip(&columns.counts) {
                let count = (row_count * count) as f32;
                for (sum, dy) in sum.iter_mut().zip(dy) {
                    *sum += dy / count;
                }
            }
        }
        for (dx, windows) in dx.chunks_exact_mut(channels).zip(&columns.windows_of) {
            let mut shares = sums[windows.start * channels..windows.end * channels].chunks_exact(channels);
            match shares.next() {
                Some(share) => dx.copy_from_slice(share),
                None => dx.fill(0.0),
            }
            shares.for_each(|share| add(dx, share));
        }
    }
}
