//! The product that the forward and backward-data passes are made of: rows of windows times a panel of weights.
//!
//! Rows are held in registers, up to [`Simd::ROWS`] at a time. Where the depth is cut into chunks, all but the last leave
//! partial sums in scratch memory; the last hands its registers to the epilogue, which writes the outputs. Each output
//! sums over the depth in order, whatever the rows it is computed with.

use std::hint::black_box;

use super::phase::Pixel;
use super::windows::Windows;
use crate::conv2d::hooks::{Epilogue, Sums};
use crate::simd::{Kernel, Simd};

/// One chunk of the depth for `rows` windows and one panel.
#[derive(Debug)]
pub(super) struct Tile<'a, E> {
    pub(super) rows: usize,
    pub(super) a: &'a Windows,
    /// `[depth, width]`.
    pub(super) b: *const f32,
    /// Memory to ask for meanwhile: what the next tile reads as `B`.
    pub(super) next: *const f32,
    /// Partial sums, `[rows, width]`, rows `partial_stride` apart.
    pub(super) partial: *mut f32,
    pub(super) partial_stride: usize,
    /// Whether the partial sums are to be added to, not started.
    pub(super) resume: bool,
    /// What follows the last chunk.
    pub(super) finish: Option<Finish<'a, E>>,
}

/// The way of finished sums to the output.
#[derive(Debug)]
pub(super) struct Finish<'a, E> {
    pub(super) epilogue: &'a E,
    /// The output pixel of each row.
    pub(super) pixels: &'a [Pixel],
    pub(super) y: *mut f32,
    /// Channels of an output pixel.
    pub(super) channels: usize,
    /// The first channel, and the channels without filling lanes: of a panel, or of all panels of a range.
    pub(super) channel: usize,
    pub(super) used: usize,
    /// The epilogue's sums `[SUMS, sums_row]`, of which these channels' begin at `sums_channel`.
    pub(super) sums: &'a mut [f32],
    pub(super) sums_row: usize,
    pub(super) sums_channel: usize,
}

/// Runs `tile` on a panel of `width` lanes: one vector or two.
///
/// # Safety
/// - `A` and `B` are readable; if the tile resumes, so are the partial sums, and initialised.
/// - Without a finish the partial sums are writable. With one, `y` is writable at `used` channels from `channel` on of each
///   pixel; `used` is more than `width` less a vector, and at most `width`.
/// - Nobody else uses that memory during the call.
pub(super) unsafe fn multiply<S: Simd, E: Epilogue>(s: S, tile: Tile<'_, E>, width: usize) {
    debug_assert!(width == S::LANES || width == 2 * S::LANES);
    if width == S::LANES {
        s.vectorize(Panel::<1, E>(tile));
    } else {
        s.vectorize(Panel::<2, E>(tile));
    }
}

/// A tile on a panel of `VECTORS` vectors. Invariant: [`multiply`]'s conditions.
struct Panel<'a, const VECTORS: usize, E>(Tile<'a, E>);

impl<const VECTORS: usize, E: Epilogue> Kernel for Panel<'_, VECTORS, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut row = 0;
        let mut left = self.0.rows;
        while left > 0 {
            // A block that would leave few rows behind is made smaller, so that two even ones remain.
            let block = match left {
                12.. if S::ROWS >= 12 && left != 16 => self.block::<S, 12>(s, row),
                8.. if S::ROWS >= 8 => self.block::<S, 8>(s, row),
                6.. if S::ROWS == 6 && left != 8 => self.block::<S, 6>(s, row),
                4.. => self.block::<S, 4>(s, row),
                2.. => self.block::<S, 2>(s, row),
                _ => self.block::<S, 1>(s, row),
            };
            row += block;
            left -= block;
        }
    }
}

impl<const VECTORS: usize, E: Epilogue> Panel<'_, VECTORS, E> {
    /// Computes `ROWS` rows from `row` on; returns `ROWS`.
    #[inline(always)]
    fn block<S: Simd, const ROWS: usize>(&mut self, s: S, row: usize) -> usize {
        let Tile {
            rows, partial_stride, ..
        } = self.0;
        let Windows { segments, starts } = self.0.a;
        let mut b = self.0.b;
        let mut next = self.0.next;
        let partial = self.0.partial.wrapping_add(row * partial_stride);
        let mut sums = [[s.zero(); VECTORS]; ROWS];
        if self.0.resume {
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: partial sums that are added to are readable for all rows and VECTORS vectors.
                    *sum = unsafe { s.load(partial.wrapping_add(i * partial_stride + j * S::LANES)) };
                }
            }
        }
        for (&len, starts) in segments.iter().zip(starts.chunks_exact(rows)) {
            let mut a = [std::ptr::null(); ROWS];
            a.copy_from_slice(&starts[row..][..ROWS]);
            let ahead = &starts[(row + ROWS).min(rows - ROWS)..][..ROWS];
            let mut d = 0;
            while d + 4 <= len {
                // A fourth of the next block's rows, a cache line each.
                let fourth = ROWS.div_ceil(4);
                for row in ahead.chunks(fourth).nth(d / 4 % 4).unwrap_or_default() {
                    s.prefetch(row.wrapping_add(d));
                }
                s.prefetch(next);
                next = next.wrapping_add(16);
                for step_of_four in 0..4 {
                    // SAFETY: A and B are readable at this depth, below `len`, for the block's rows.
                    unsafe { step(s, &mut sums, &a, d + step_of_four, b) };
                    b = b.wrapping_add(VECTORS * S::LANES);
                }
                d += 4;
            }
            while d < len {
                // SAFETY: as above.
                unsafe { step(s, &mut sums, &a, d, b) };
                b = b.wrapping_add(VECTORS * S::LANES);
                d += 1;
            }
        }
        self.0.next = next;
        match &mut self.0.finish {
            None => {
                for (i, sums) in sums.iter().enumerate() {
                    for (j, &sum) in sums.iter().enumerate() {
                        // SAFETY: partial sums are writable for all rows and VECTORS vectors.
                        unsafe { s.store(partial.wrapping_add(i * partial_stride + j * S::LANES), sum) };
                    }
                }
            }
            Some(finish) => {
                // Opaque, so that this copy is what epilogues address by row, and not the registers of the loop above: they
                // would be kept in memory all along.
                let sums = black_box(sums);
                #[allow(clippy::needless_range_loop, reason = "`j` is a column of all rows")]
                for j in 0..VECTORS {
                    finish.store::<S, ROWS>(s, row, |i| sums[i][j], j);
                }
            }
        }
        ROWS
    }
}

impl<E: Epilogue> Finish<'_, E> {
    /// Writes vector `j` of the rows from `row` on, `value` of each. The conditions of [`multiply`] or of [`fill`] hold for them.
    #[inline(always)]
    fn store<S: Simd, const ROWS: usize>(&mut self, s: S, row: usize, value: impl Fn(usize) -> S::V, j: usize) {
        let channel = self.channel + j * S::LANES;
        let lanes = S::LANES.min(self.used - j * S::LANES);
        let pixels = &self.pixels[row..][..ROWS];
        let mut constants = self.epilogue.channels(s, channel, lanes);
        if lanes == S::LANES {
            for (i, pixel) in pixels.iter().enumerate() {
                let index = pixel.target * self.channels + channel;
                let value = self.epilogue.apply(s, &mut constants, value(i), index, S::LANES);
                // SAFETY: this pixel is writable at a whole vector of channels.
                unsafe { s.store(self.y.wrapping_add(index), value) };
            }
        } else {
            for (i, pixel) in pixels.iter().enumerate() {
                let index = pixel.target * self.channels + channel;
                let value = self.epilogue.apply(s, &mut constants, value(i), index, lanes);
                // SAFETY: this pixel is writable at `lanes` channels, less than a vector.
                unsafe { s.store_first(self.y.wrapping_add(index), value, lanes) };
            }
        }
        let at = self.sums_channel + j * S::LANES;
        E::finish(s, constants, Sums::new(&mut *self.sums, self.sums_row, at));
    }
}

/// Writes what the epilogue makes of zeros: the outputs of pixels that no tap meets. Pixel by pixel, so that memory is gone through
/// in order.
///
/// # Safety
/// `finish.y` is writable at `finish.used` channels from `finish.channel` on of each pixel, by this call alone.
pub(super) unsafe fn fill<S: Simd, E: Epilogue>(s: S, finish: Finish<'_, E>) {
    s.vectorize(Fill(finish));
}

/// Invariant: [`fill`]'s conditions.
struct Fill<'a, E>(Finish<'a, E>);

impl<E: Epilogue> Kernel for Fill<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        for row in 0..self.0.pixels.len() {
            for j in 0..self.0.used.div_ceil(S::LANES) {
                self.0.store::<S, 1>(s, row, |_| s.zero(), j);
            }
        }
    }
}

/// Adds the product of one column of `A` and one row of `B`.
///
/// # Safety
/// The rows of `A` are readable at depth `d`, and `VECTORS` vectors of `B`.
#[inline(always)]
unsafe fn step<S: Simd, const ROWS: usize, const VECTORS: usize>(
    s: S,
    sums: &mut [[S::V; VECTORS]; ROWS],
    a: &[*const f32; ROWS],
    d: usize,
    b: *const f32,
) {
    let mut columns = [s.zero(); VECTORS];
    for (i, column) in columns.iter_mut().enumerate() {
        // SAFETY: the caller promises VECTORS vectors.
        *column = unsafe { s.load(b.wrapping_add(i * S::LANES)) };
    }
    for (sums, a) in sums.iter_mut().zip(a) {
        // SAFETY: the caller promises this row at this depth.
        let element = s.splat(unsafe { a.wrapping_add(d).read() });
        for (sum, column) in sums.iter_mut().zip(columns) {
            *sum = s.mul_add(element, column, *sum);
        }
    }
}
