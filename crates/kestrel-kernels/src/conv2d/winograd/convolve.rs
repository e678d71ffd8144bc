//! The forward pass, which with turned and transposed weights is the backward pass to the data: its operands, the choice
//! of how to cut it up, and the sums of its epilogue.

use super::input::{Input, Loaded};
use super::output::{Output, Stored};
use super::panel::Panels;
use super::shape::{Form, Shape};
use super::transform::{Transform, Unit};
use super::weights::Direction;
use super::{Convolution, by_panels, by_tiles};
use crate::conv2d::hooks::{Epilogue, OnLoad};
use crate::conv2d::slices::check_len;
use crate::conv2d::workspace::Buffer;
use crate::simd::Simd;

/// Floats of transformed patches up to which those of all tiles are held at once: 12 MiB.
const ALL_PATCHES: usize = 3 << 20;

/// Runs `pass`; returns the epilogue's sums, `[SUMS, K]`.
pub(super) fn convolve<T: Transform, S: Simd, L: OnLoad, E: Epilogue>(
    s: S,
    pass: Convolution<'_, T, L, E>,
) -> Vec<f64> {
    match pass.shape.form() {
        Form::Unit => convolve_by::<Unit, T, S, L, E>(s, pass),
        Form::Strided | Form::StridedBack(_) => convolve_by::<T, T, S, L, E>(s, pass),
    }
}

/// The same by the transforms `T`, those of the shape's form.
fn convolve_by<T: Transform, U, S: Simd, L: OnLoad, E: Epilogue>(s: S, pass: Convolution<'_, U, L, E>) -> Vec<f64> {
    let Convolution {
        shape,
        strided: _,
        direction,
        x,
        load,
        w,
        epilogue,
        y,
        pooled,
        workspace,
    } = pass;
    let ([.., c], [.., k]) = (shape.input(), shape.output());
    let weight = if direction == Direction::Forward {
        [k, c, 3, 3]
    } else {
        [c, k, 3, 3]
    };
    check_len("a weight", w.len(), weight);
    let operands = Operands {
        s,
        shape: &shape,
        panels: Panels::new(s, k, c, T::ALL_PLANES),
        input: &Loaded::<T, S, L>::new(s, &shape, x, load),
        w,
        direction,
        output: &Stored::<T, S, E>::new(s, &shape, epilogue, y, pooled),
        sums: E::SUMS,
    };
    // Patches that are far fewer than weights are held at once, transformed, and weights pass by; else it is the other way about.
    // Half as many are not few enough: panel by panel, patches are read as often as weights block by block, and less in order.
    let (patches, weights) = (T::ALL_POINTS * shape.tiles(), T::ALL_PLANES * k);
    if 2 * patches <= weights && patches * c <= ALL_PATCHES {
        by_panels::convolve::<T, S>(operands, workspace).totals(k)
    } else {
        by_tiles::convolve::<T, S>(operands, workspace).totals(k)
    }
}

/// What a pass reads and writes.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a, S> {
    pub(super) s: S,
    pub(super) shape: &'a Shape,
    /// Of output channels over input channels.
    pub(super) panels: Panels,
    pub(super) input: &'a dyn Input,
    pub(super) w: &'a [f32],
    pub(super) direction: Direction,
    pub(super) output: &'a dyn Output,
    /// Sums that the output's epilogue gathers for each channel.
    pub(super) sums: usize,
}

/// The epilogue's sums, one unit for each block of tiles and range of channels: `[unit, SUMS, row]`.
pub(super) struct Sums<'a> {
    pub(super) values: &'a mut [f32],
    /// Sums for each channel.
    count: usize,
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
    pub(super) fn by_block(buffer: &'a mut Buffer, count: usize, blocks: usize, ranges: usize, row: usize) -> Self {
        let len = count * row;
        let values = buffer.floats(blocks * ranges * len);
        values.fill(0.0);
        Self {
            values,
            count,
            len,
            row,
            ranges,
            consecutive: 1,
        }
    }

    /// Zeros for units in the order `[range, block]`.
    pub(super) fn by_range(buffer: &'a mut Buffer, count: usize, ranges: usize, blocks: usize, row: usize) -> Self {
        Self {
            consecutive: blocks,
            ..Self::by_block(buffer, count, blocks, ranges, row)
        }
    }

    /// The sums over all blocks, in order, in f64: `[SUMS, k]`.
    fn totals(&self, k: usize) -> Vec<f64> {
        let mut totals = vec![0.0; self.count * k];
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
