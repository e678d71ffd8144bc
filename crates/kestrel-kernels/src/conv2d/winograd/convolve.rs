//! The forward pass, which with turned and transposed weights is the backward pass to the data: its operands, the choice
//! of how to cut it up, and the sums of its epilogue.

use std::marker::PhantomData;
use std::ops::Range;

use super::output::{self, Products};
use super::panel::Panels;
use super::shape::{Form, Shape};
use super::transform::{Strided, StridedBack, Transform, Unit};
use super::weights::Direction;
use super::{Convolution, by_panels, by_tiles, input};
use crate::conv2d::hooks::{Epilogue, OnLoad};
use crate::conv2d::slices::{Shared, check_len};
use crate::conv2d::workspace::Buffer;
use crate::simd::Simd;

/// Floats of transformed patches up to which those of all tiles are held at once: 12 MiB.
const ALL_PATCHES: usize = 3 << 20;

/// Runs `pass`; returns the epilogue's sums, `[SUMS, K]`.
pub(super) fn convolve<S: Simd, L: OnLoad, E: Epilogue>(s: S, pass: Convolution<'_, L, E>) -> Vec<f64> {
    match pass.shape.form() {
        Form::Unit => convolve_by::<Unit, S, L, E>(s, pass),
        Form::Strided => convolve_by::<Strided, S, L, E>(s, pass),
        Form::StridedBack(_) => convolve_by::<StridedBack, S, L, E>(s, pass),
    }
}

/// The same by the transforms of the shape's form.
fn convolve_by<T: Transform, S: Simd, L: OnLoad, E: Epilogue>(s: S, pass: Convolution<'_, L, E>) -> Vec<f64> {
    let Convolution {
        shape,
        direction,
        x,
        load,
        w,
        epilogue,
        y,
        workspace,
    } = pass;
    let [.., c] = shape.input();
    let [n, p, q, k] = shape.output();
    let weight = if direction == Direction::Forward {
        [k, c, 3, 3]
    } else {
        [c, k, 3, 3]
    };
    check_len("an input", x.len(), shape.input());
    check_len("a weight", w.len(), weight);
    if E::POOLS {
        assert!(
            p % 2 == 0 && q % 2 == 0,
            "expected outputs of even sides to pool, got {p}x{q}"
        );
        check_len("a pooled output", y.len(), [n, p / 2, q / 2, k]);
    } else {
        check_len("an output", y.len(), shape.output());
    }
    load.check(c);
    epilogue.check(k, y.len());

    let panels = Panels::new(s, k, c, T::ALL_PLANES);
    let operands = Operands::<T, S, L, E> {
        s,
        transform: PhantomData,
        shape: &shape,
        panels,
        x,
        load,
        epilogue,
        y: Shared(y.as_mut_ptr().cast()),
    };
    // Patches that are far fewer than weights are held at once, transformed, and weights pass by; else it is the other way about.
    // Half as many are not few enough: panel by panel, patches are read as often as weights block by block, and less in order.
    let (patches, weights) = (T::ALL_POINTS * shape.tiles(), T::ALL_PLANES * k);
    if 2 * patches <= weights && patches * c <= ALL_PATCHES {
        by_panels::convolve(operands, w, direction, workspace).totals::<E>(k)
    } else {
        by_tiles::convolve(operands, w, direction, workspace).totals::<E>(k)
    }
}

/// What a pass reads and writes. Invariant, established by [`convolve`]: `x` has the length of the shape's input, `y` is
/// writable for the length of its output, pooled if the epilogue pools, and nobody else uses that during the pass.
pub(super) struct Operands<'a, T, S, L, E> {
    pub(super) s: S,
    transform: PhantomData<T>,
    pub(super) shape: &'a Shape,
    /// Of output channels over input channels.
    pub(super) panels: Panels,
    x: &'a [f32],
    load: &'a L,
    epilogue: &'a E,
    y: Shared,
}

impl<T: Copy, S: Copy, L, E> Clone for Operands<'_, T, S, L, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Copy, S: Copy, L, E> Copy for Operands<'_, T, S, L, E> {}

impl<T: Transform, S: Simd, L: OnLoad, E: Epilogue> Operands<'_, T, S, L, E> {
    /// Transforms the patches of `tiles` to `v`.
    ///
    /// # Safety
    /// As [`input::transform_patches`], but for `x`.
    pub(super) unsafe fn transform_patches(&self, tiles: Range<usize>, v: *mut f32, strides: [usize; 2]) {
        // SAFETY: `x` has the length of the shape's input; the rest is the caller's promise.
        unsafe {
            input::transform_patches::<T, S, L>(self.s, self.shape, self.x.as_ptr(), self.load, tiles, v, strides)
        };
    }

    /// Writes output channels `channels` of `tiles`.
    ///
    /// # Safety
    /// As [`output::transform_products`], but for the length of `y`.
    pub(super) unsafe fn transform_products(
        &self,
        products: Products,
        tiles: Range<usize>,
        channels: Range<usize>,
        sums: &mut [f32],
    ) {
        let y = self.y.get();
        // SAFETY: `y` is writable for the length of the shape's output; the rest is the caller's promise.
        unsafe {
            output::transform_products::<T, S, E>(
                self.s,
                self.shape,
                products,
                self.epilogue,
                tiles,
                channels,
                y,
                sums,
            );
        };
    }
}

/// The epilogue's sums, one unit for each block of tiles and range of channels: `[unit, SUMS, row]`.
pub(super) struct Sums<'a> {
    pub(super) values: &'a mut [f32],
    /// Floats of a unit.
    pub(super) len: usize,
    /// Channels of a range, the last one perhaps less.
    row: usize,
    ranges: usize,
    /// Units of one range that follow one another.
    consecutive: usize,
}

impl<'a> Sums<'a> {
    /// Zeros for units in the order `[block, range]`.
    pub(super) fn by_block<E: Epilogue>(buffer: &'a mut Buffer, blocks: usize, ranges: usize, row: usize) -> Self {
        let len = E::SUMS * row;
        let values = buffer.floats(blocks * ranges * len);
        values.fill(0.0);
        Self {
            values,
            len,
            row,
            ranges,
            consecutive: 1,
        }
    }

    /// Zeros for units in the order `[range, block]`.
    pub(super) fn by_range<E: Epilogue>(buffer: &'a mut Buffer, ranges: usize, blocks: usize, row: usize) -> Self {
        Self {
            consecutive: blocks,
            ..Self::by_block::<E>(buffer, blocks, ranges, row)
        }
    }

    /// The sums over all blocks, in order, in f64: `[SUMS, k]`.
    fn totals<E: Epilogue>(&self, k: usize) -> Vec<f64> {
        let mut totals = vec![0.0; E::SUMS * k];
        for (unit, sums) in self.values.chunks_exact(self.len.max(1)).enumerate() {
            let first = unit / self.consecutive % self.ranges * self.row;
            for (totals, sums) in totals.chunks_exact_mut(k).zip(sums.chunks_exact(self.row)) {
                for (total, &sum) in totals[first..].iter_mut().zip(sums) {
                    *total += f64::from(sum);
                }
            }
        }
        totals
    }
}
