//! The product that the backward pass to the weights is made of: windows of a block of pixels, transposed, times a panel of
//! gradients, added to an accumulator.
//!
//! Rows of the accumulator, which are floats of the windows, are held in registers, up to [`Simd::ROWS`] at a time. Each
//! element sums over the pixels of the block in order, whatever the rows it is computed with.

use crate::conv2d::workspace::LINE;
use crate::simd::{Kernel, Simd};

/// Pixels from the one that is asked for ahead to the one that is worked on.
const AHEAD: usize = 16;

/// `rows` floats of the windows of some pixels, times as many rows of a panel.
#[derive(Debug)]
pub(super) struct Accumulate<'a> {
    pub(super) rows: usize,
    /// Where each pixel's floats begin.
    pub(super) windows: &'a [*const f32],
    /// `[pixels, width]`.
    pub(super) gradients: *const f32,
    /// `[rows, width]`.
    pub(super) sums: *mut f32,
    /// Whether the sums are to be started, not added to.
    pub(super) start: bool,
    /// Memory to ask for meanwhile: each block of rows asks for the next cache line of what lies `next_step` floats apart.
    pub(super) next: *const f32,
    pub(super) next_step: usize,
}

/// Runs `product` on a panel of `width` lanes: one vector or two.
///
/// # Safety
/// - For each pixel `rows` floats and a row of the panel are readable.
/// - The sums are writable, initialised unless they are started, and used by nobody else during the call.
pub(super) unsafe fn accumulate<S: Simd>(s: S, product: Accumulate<'_>, width: usize) {
    debug_assert!(width == S::LANES || width == 2 * S::LANES);
    if width == S::LANES {
        s.vectorize(Panel::<1>(product));
    } else {
        s.vectorize(Panel::<2>(product));
    }
}

/// A product on a panel of `VECTORS` vectors. Invariant: [`accumulate`]'s conditions.
struct Panel<'a, const VECTORS: usize>(Accumulate<'a>);

impl<const VECTORS: usize> Kernel for Panel<'_, VECTORS> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut row = 0;
        let mut left = self.0.rows;
        while left > 0 {
            // A block that would leave few rows behind is made smaller, so that two even ones remain.
            let block = match left {
                12.. if S::ROWS >= 12 && left != 16 => self.block::<S, 12>(s, row),
                9 if S::ROWS >= 12 => self.block::<S, 9>(s, row),
                8.. if S::ROWS >= 8 => self.block::<S, 8>(s, row),
                6.. if S::ROWS == 6 && left != 8 => self.block::<S, 6>(s, row),
                4.. => self.block::<S, 4>(s, row),
                3 => self.block::<S, 3>(s, row),
                2.. => self.block::<S, 2>(s, row),
                _ => self.block::<S, 1>(s, row),
            };
            row += block;
            left -= block;
        }
    }
}

impl<const VECTORS: usize> Panel<'_, VECTORS> {
    /// Computes `ROWS` rows from `row` on; returns `ROWS`.
    #[inline(always)]
    fn block<S: Simd, const ROWS: usize>(&self, s: S, row: usize) -> usize {
        let windows = self.0.windows;
        let target = self.0.sums.wrapping_add(row * VECTORS * S::LANES);
        let mut b = self.0.gradients;
        let mut next = self.0.next.wrapping_add(row / S::ROWS * LINE);
        let mut sums = [[s.zero(); VECTORS]; ROWS];
        for (pixel, a) in windows.iter().enumerate() {
            // The sums that are added to in the end, what comes next, and the window of a later pixel.
            s.prefetch(target.wrapping_add(pixel.min(ROWS * VECTORS - 1) * S::LANES));
            s.prefetch(next);
            next = next.wrapping_add(self.0.next_step);
            s.prefetch(windows[(pixel + AHEAD).min(windows.len() - 1)].wrapping_add(row + ROWS - 1));
            let mut columns = [s.zero(); VECTORS];
            for (i, column) in columns.iter_mut().enumerate() {
                // SAFETY: the panel has a row of VECTORS vectors for each pixel.
                *column = unsafe { s.load(b.wrapping_add(i * S::LANES)) };
            }
            b = b.wrapping_add(VECTORS * S::LANES);
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: `row + i < rows` floats of each pixel's window are readable.
                let element = s.splat(unsafe { a.wrapping_add(row + i).read() });
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = s.mul_add(element, column, *sum);
                }
            }
        }
        // By reference and by index: taken by value, the registers would go through memory.
        for (i, sums) in sums.iter().enumerate() {
            for (j, &sum) in sums.iter().enumerate() {
                let target = target.wrapping_add((i * VECTORS + j) * S::LANES);
                let mut sum = sum;
                if !self.0.start {
                    // SAFETY: sums that are added to are readable and initialised.
                    sum = s.add(unsafe { s.load(target) }, sum);
                }
                // SAFETY: row `row + i < rows` is writable for VECTORS vectors.
                unsafe { s.store(target, sum) };
            }
        }
        ROWS
    }
}
