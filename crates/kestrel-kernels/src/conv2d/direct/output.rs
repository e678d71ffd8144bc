//! The way of finished sums to the output: an epilogue, pixel by pixel.

use super::phase::Pixel;
use super::tile;
use crate::conv2d::hooks::{Epilogue, Sums};
use crate::conv2d::slices::Shared;
use crate::simd::{Kernel, Simd};

/// Pixels of an output at a range of channels, less than a vector or whole vectors and a rest.
///
/// Invariant: `y` is writable at `used` channels from `channel` on of each pixel, by this alone.
pub(super) struct Output<'a, S, E> {
    pub(super) s: S,
    pub(super) epilogue: &'a E,
    /// The output pixel of each row.
    pub(super) pixels: &'a [Pixel],
    pub(super) y: Shared,
    /// Channels of an output pixel.
    pub(super) channels: usize,
    /// The first channel, and the channels without filling lanes.
    pub(super) channel: usize,
    pub(super) used: usize,
    /// The epilogue's sums `[SUMS, sums_row]`, of which these channels' begin at `sums_channel`.
    pub(super) sums: &'a mut [f32],
    pub(super) sums_row: usize,
    pub(super) sums_channel: usize,
}

impl<S: Simd, E: Epilogue> Output<'_, S, E> {
    /// Writes what the epilogue makes of zeros to all pixels.
    pub(super) fn fill(&mut self) {
        let s = self.s;
        s.vectorize(Fill(self));
    }
}

/// Invariant: [`Output`]'s.
struct Fill<'a, 'b, S, E>(&'a mut Output<'b, S, E>);

impl<T, E: Epilogue> Kernel for Fill<'_, '_, T, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self(output) = self;
        for first in (0..output.used).step_by(S::LANES) {
            let channel = output.channel + first;
            let lanes = S::LANES.min(output.used - first);
            let mut constants = output.epilogue.channels(s, channel, lanes);
            for pixel in output.pixels {
                let index = pixel.target * output.channels + channel;
                let value = output.epilogue.apply(s, &mut constants, s.zero(), index, lanes);
                let target = output.y.get().wrapping_add(index);
                if lanes == S::LANES {
                    // SAFETY: this pixel is writable at a whole vector of channels.
                    unsafe { s.store(target, value) };
                } else {
                    // SAFETY: this pixel is writable at `lanes` channels, less than a vector.
                    unsafe { s.store_first(target, value, lanes) };
                }
            }
            let at = output.sums_channel + first;
            E::finish(s, constants, Sums::new(&mut *output.sums, output.sums_row, at));
        }
    }
}

impl<S: Simd, E: Epilogue> tile::Output for Output<'_, S, E> {
    fn take(&mut self, row: usize, sums: &[f32], width: usize) {
        assert!(self.used <= width);
        let s = self.s;
        s.vectorize(Take {
            output: self,
            row,
            values: sums,
            width,
        });
    }
}

/// `[rows, width]` values of the pixels from `row` on. Invariant: [`Output`]'s, and at most `width` channels are used.
struct Take<'a, 'b, S, E> {
    output: &'a mut Output<'b, S, E>,
    row: usize,
    values: &'a [f32],
    width: usize,
}

impl<T, E: Epilogue> Kernel for Take<'_, '_, T, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self {
            output,
            row,
            values,
            width,
        } = self;
        let pixels = &output.pixels[row..];
        for first in (0..output.used).step_by(S::LANES) {
            let channel = output.channel + first;
            let lanes = S::LANES.min(output.used - first);
            let mut constants = output.epilogue.channels(s, channel, lanes);
            let rows = values.chunks_exact(width).zip(pixels);
            if lanes == S::LANES {
                for (values, pixel) in rows {
                    let index = pixel.target * output.channels + channel;
                    // SAFETY: a row has `width` values, at least a whole vector from `first` on.
                    let value = unsafe { s.load(values.as_ptr().wrapping_add(first)) };
                    let value = output.epilogue.apply(s, &mut constants, value, index, S::LANES);
                    // SAFETY: this pixel is writable at a whole vector of channels.
                    unsafe { s.store(output.y.get().wrapping_add(index), value) };
                }
            } else {
                for (values, pixel) in rows {
                    let index = pixel.target * output.channels + channel;
                    // SAFETY: a row has `width` values, at least `lanes` from `first` on.
                    let value = unsafe { s.load_first(values.as_ptr().wrapping_add(first), lanes) };
                    let value = output.epilogue.apply(s, &mut constants, value, index, lanes);
                    // SAFETY: this pixel is writable at `lanes` channels, less than a vector.
                    unsafe { s.store_first(output.y.get().wrapping_add(index), value, lanes) };
                }
            }
            let at = output.sums_channel + first;
            E::finish(s, constants, Sums::new(&mut *output.sums, output.sums_row, at));
        }
    }
}
