//! The product of one point: `C = A B` or `C += A B`, with `B` and `C` in panels two vectors (or one) wide.
//!
//! Rows of `C` are held in registers, up to [`Simd::ROWS`] at a time; elements of `A` are broadcast straight from where
//! the transform left them. Each element of `C` sums over the depth in order, whatever the rows it is computed with.

use crate::conv2d::workspace::LINE;
use crate::simd::{Kernel, Simd};

/// Tiles of a block of the forward pass.
pub(super) const BLOCK_TILES: usize = 24;

/// One product with `rows` x `depth` elements of `A` and a panel of `B`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) a: *const f32,
    pub(super) a_stride: usize,
    /// `[depth, width]`.
    pub(super) b: *const f32,
    pub(super) c: *mut f32,
    /// Floats from a row of `C` to the next.
    pub(super) c_stride: usize,
    /// Memory to ask for meanwhile: what the next product reads as `B`, or adds to.
    pub(super) next: *const f32,
    /// Floats from `A` to what a later product reads as `A`, to ask for meanwhile, or 0.
    pub(super) ahead: usize,
}

/// Runs `product` on panels of `width` lanes: one vector or two. `A` is `a[depth * a_stride + row]` if `DEPTH_MAJOR`, else
/// `a[row * a_stride + depth]`; with `ADD` the product is added to `C`.
///
/// # Safety
/// `A` and `B` are readable, `C` is writable (and, if it is added to, initialised), and nobody else uses the
/// elements of `C` during the call.
pub(super) unsafe fn multiply<S: Simd, const DEPTH_MAJOR: bool, const ADD: bool>(s: S, product: Product, width: usize) {
    debug_assert!(width == S::LANES || width == 2 * S::LANES);
    if width == S::LANES {
        s.vectorize(Panel::<1, DEPTH_MAJOR, ADD>(product));
    } else {
        s.vectorize(Panel::<2, DEPTH_MAJOR, ADD>(product));
    }
}

/// A product on panels of `VECTORS` vectors. Invariant: [`multiply`]'s conditions.
struct Panel<const VECTORS: usize, const DEPTH_MAJOR: bool, const ADD: bool>(Product);

impl<const VECTORS: usize, const DEPTH_MAJOR: bool, const ADD: bool> Kernel for Panel<VECTORS, DEPTH_MAJOR, ADD> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut row = 0;
        let mut left = self.0.rows;
        while left > 0 {
            // A block that would leave one or two rows behind is made smaller, so that two even ones remain.
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

impl<const VECTORS: usize, const DEPTH_MAJOR: bool, const ADD: bool> Panel<VECTORS, DEPTH_MAJOR, ADD> {
    /// Computes `ROWS` rows of `C` from `row` on; returns `ROWS`.
    #[inline(always)]
    fn block<S: Simd, const ROWS: usize>(&self, s: S, row: usize) -> usize {
        let Product {
            depth,
            a_stride,
            c_stride,
            ahead,
            ..
        } = self.0;
        let (row_step, depth_step) = if DEPTH_MAJOR { (1, a_stride) } else { (a_stride, 1) };
        let mut a = self.0.a.wrapping_add(row * row_step);
        let mut b = self.0.b;
        // Floats of `next` to ask for at each depth. The blocks of a block of tiles ask for a whole panel together.
        let share = if DEPTH_MAJOR {
            LINE / 4
        } else {
            (VECTORS * S::LANES * S::ROWS).div_ceil(BLOCK_TILES)
        };
        let mut next = self.0.next.wrapping_add(row / S::ROWS * depth * share);
        let mut sums = [[s.zero(); VECTORS]; ROWS];
        // Depth by depth, and asking without conditions: in an unrolled loop, or in one of several versions, the compiler keeps
        // registers in memory.
        for d in 0..depth {
            s.prefetch(next);
            next = next.wrapping_add(share);
            // A row of the block at a time: a cache line has 16 depths.
            let asked = if DEPTH_MAJOR { 0 } else { (d % LINE).min(ROWS - 1) };
            s.prefetch(a.wrapping_add(ahead + asked * row_step));
            // SAFETY: A and B are readable at this depth, below `depth`, for the block's rows.
            unsafe { step(s, &mut sums, a, row_step, b) };
            a = a.wrapping_add(depth_step);
            b = b.wrapping_add(VECTORS * S::LANES);
        }
        // Column by column: row by row, the compiler may see a copy of memory, and keep the sums there all along.
        #[allow(clippy::needless_range_loop, reason = "`j` is a column of all rows")]
        for j in 0..VECTORS {
            for (i, sums) in sums.iter().enumerate() {
                let target = self.0.c.wrapping_add((row + i) * c_stride + j * S::LANES);
                let mut sum = sums[j];
                if ADD {
                    // SAFETY: C is readable and initialised where it is added to.
                    sum = s.add(unsafe { s.load(target) }, sum);
                }
                // SAFETY: row `row + i < rows` of C is writable for VECTORS vectors.
                unsafe { s.store(target, sum) };
            }
        }
        ROWS
    }
}

/// Adds the product of one column of `A` and one row of `B`.
///
/// # Safety
/// `ROWS` elements of `A`, `row_step` apart, and `VECTORS` vectors of `B` are readable.
#[inline(always)]
unsafe fn step<S: Simd, const ROWS: usize, const VECTORS: usize>(
    s: S,
    sums: &mut [[S::V; VECTORS]; ROWS],
    a: *const f32,
    row_step: usize,
    b: *const f32,
) {
    let mut columns = [s.zero(); VECTORS];
    for (i, column) in columns.iter_mut().enumerate() {
        // SAFETY: the caller promises VECTORS vectors.
        *column = unsafe { s.load(b.wrapping_add(i * S::LANES)) };
    }
    for (i, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller promises ROWS elements.
        let element = s.splat(unsafe { a.wrapping_add(i * row_step).read() });
        for (sum, column) in sums.iter_mut().zip(columns) {
            *sum = s.mul_add(element, column, *sum);
        }
    }
}
