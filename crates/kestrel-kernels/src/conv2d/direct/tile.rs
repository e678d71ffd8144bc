//! The product that the forward and backward-data passes are made of: rows of windows times a panel of weights.
//!
//! Rows are held in registers, up to [`Simd::ROWS`] at a time. Where the depth is cut into chunks, all but the last leave
//! partial sums in scratch memory; the last hands its sums to an [`Output`]. Each output sums over the depth in order, whatever the
//! rows it is computed with.
//!
//! The product does not know the epilogue: it is the larger part of the code by far, and is compiled once for all of them.

use std::mem::MaybeUninit;

use super::windows::Windows;
use crate::simd::{Kernel, MAX_LANES, Simd};

/// Rows of a block, at most.
const MAX_ROWS: usize = 12;

/// What takes finished sums.
pub(super) trait Output {
    /// Takes the sums `[rows, width]` of rows from `row` on.
    fn take(&mut self, row: usize, sums: &[f32], width: usize);
}

/// One chunk of the depth for `rows` windows and one panel.
pub(super) struct Tile<'a> {
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
    /// What takes the sums of the last chunk.
    pub(super) output: Option<&'a mut dyn Output>,
}

/// Runs `tile` on a panel of `width` lanes: one vector or two.
///
/// # Safety
/// - `A` and `B` are readable; if the tile resumes, so are the partial sums, and initialised.
/// - Without an output the partial sums are writable, and nobody else uses them during the call.
pub(super) unsafe fn multiply<S: Simd>(s: S, tile: Tile<'_>, width: usize) {
    debug_assert!(width == S::LANES || width == 2 * S::LANES);
    if width == S::LANES {
        s.vectorize(Panel::<1>(tile));
    } else {
        s.vectorize(Panel::<2>(tile));
    }
}

/// A tile on a panel of `VECTORS` vectors. Invariant: [`multiply`]'s conditions.
struct Panel<'a, const VECTORS: usize>(Tile<'a>);

impl<const VECTORS: usize> Kernel for Panel<'_, VECTORS> {
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

/// The sums of a block, on cache lines of their own: a vector across two of them takes twice as long.
#[repr(align(64))]
struct Copied([MaybeUninit<f32>; MAX_ROWS * 2 * MAX_LANES]);

impl Default for Copied {
    fn default() -> Self {
        Self([MaybeUninit::uninit(); MAX_ROWS * 2 * MAX_LANES])
    }
}

impl<const VECTORS: usize> Panel<'_, VECTORS> {
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
        // Written to memory at once: where an epilogue addresses the sums by row, they are kept in memory all along.
        let width = VECTORS * S::LANES;
        let mut copy = Copied::default();
        let (target, stride) = match self.0.output {
            None => (partial, partial_stride),
            Some(_) => (copy.0.as_mut_ptr().cast(), width),
        };
        for (i, sums) in sums.iter().enumerate() {
            for (j, &sum) in sums.iter().enumerate() {
                // SAFETY: partial sums are writable for all rows and VECTORS vectors; the copy has MAX_ROWS of two of the longest.
                unsafe { s.store(target.wrapping_add(i * stride + j * S::LANES), sum) };
            }
        }
        if let Some(output) = &mut self.0.output {
            // SAFETY: the first ROWS rows of `width` floats have just been written.
            let sums = unsafe { copy.0[..ROWS * width].assume_init_ref() };
            output.take(row, sums, width);
        }
        ROWS
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
