//! The windows of a pooling, and the kernels over them; one plane is one piece of work.

use super::geometry::Geometry;
use crate::element::Element;
use rayon::prelude::*;
use std::hint::select_unpredictable;
use std::ops::Range;

/// Output elements below which planes are not shared out one by one.
const BLOCK: usize = 1 << 12;

impl Geometry {
    fn in_plane(&self) -> usize {
        self.height * self.width
    }

    fn out_plane(&self) -> usize {
        self.out_height * self.out_width
    }

    /// The windows along one axis of `0..out` whose tap `tap` lies inside `0..size`.
    fn windows_inside(&self, tap: usize, size: usize, out: usize) -> Range<usize> {
        let start = self.padding.saturating_sub(tap).div_ceil(self.stride);
        let end = match (size + self.padding).checked_sub(tap + 1) {
            Some(last) => (last / self.stride + 1).min(out),
            None => 0,
        };
        start.min(end)..end
    }

    /// The first pixel along one axis that window `i` covers.
    fn first(&self, i: usize) -> usize {
        (i * self.stride).saturating_sub(self.padding)
    }

    /// Writes each window's maximum and the maximum's pixel.
    ///
    /// A row of windows is compared with one tap after the other, in row-major order; a tap takes over if it is larger or
    /// NaN, which is PyTorch's test.
    fn pool_plane<T: Element>(&self, plane: &[T], maxima: &mut [T], indices: &mut [u32]) {
        let rows = maxima
            .chunks_exact_mut(self.out_width)
            .zip(indices.chunks_exact_mut(self.out_width));
        for (p, (maxima, indices)) in rows.enumerate() {
            maxima.fill(T::NEG_INFINITY);
            for (q, index) in indices.iter_mut().enumerate() {
                *index = (self.first(p) * self.width + self.first(q)) as u32;
            }
            for r in 0..self.kernel {
                let row = (p * self.stride + r)
                    .checked_sub(self.padding)
                    .filter(|row| *row < self.height);
                let Some(row) = row else { continue };
                for s in 0..self.kernel {
                    let windows = self.windows_inside(s, self.width, self.out_width);
                    if windows.is_empty() {
                        continue;
                    }
                    let first = row * self.width + windows.start * self.stride + s - self.padding;
                    let (maxima, indices) = (&mut maxima[windows.clone()], &mut indices[windows]);
                    match self.stride {
                        1 => compare::<T, 1>(&plane[first..], first, maxima, indices, 1),
                        2 => compare::<T, 2>(&plane[first..], first, maxima, indices, 2),
                        stride => compare::<T, 0>(&plane[first..], first, maxima, indices, stride),
                    }
                }
            }
        }
    }
}

/// Lets a tap take over the windows that it wins; its pixels lie `stride` apart from `first` on. A `STRIDE` other than 0
/// is the same stride, known to the compiler.
#[inline(always)]
fn compare<T: Element, const STRIDE: usize>(
    pixels: &[T],
    first: usize,
    maxima: &mut [T],
    indices: &mut [u32],
    stride: usize,
) {
    let stride = if STRIDE == 0 { stride } else { STRIDE };
    let count = maxima.len().min(indices.len());
    let pixels = &pixels[..(count - 1) * stride + 1];
    for i in 0..count {
        let value = pixels[i * stride];
        // A value that is not equal to itself is NaN.
        #[allow(clippy::eq_op)]
        let takes = (value > maxima[i]) | (value != value);
        maxima[i] = select_unpredictable(takes, value, maxima[i]);
        indices[i] = select_unpredictable(takes, (first + i * stride) as u32, indices[i]);
    }
}

/// The maximum of each window.
pub(super) fn maxima<T: Element>(g: &Geometry, x: &[T]) -> Vec<T> {
    let mut y = vec![T::ZERO; g.batch * g.channels * g.out_plane()];
    y.par_chunks_mut(g.out_plane())
        .zip(x.par_chunks(g.in_plane()))
        .with_min_len((BLOCK / g.out_plane()).max(1))
        .for_each_init(|| vec![0; g.out_plane()], |unused, (y, x)| g.pool_plane(x, y, unused));
    y
}

/// The maximum of each window and the pixel, within its plane, that it came from.
pub(super) fn maxima_and_indices<T: Element>(g: &Geometry, x: &[T]) -> (Vec<T>, Vec<u32>) {
    let windows = g.batch * g.channels * g.out_plane();
    let (mut y, mut indices) = (vec![T::ZERO; windows], vec![0; windows]);
    y.par_chunks_mut(g.out_plane())
        .zip(indices.par_chunks_mut(g.out_plane()))
        .zip(x.par_chunks(g.in_plane()))
        .with_min_len((BLOCK / g.out_plane()).max(1))
        .for_each(|((y, indices), x)| g.pool_plane(x, y, indices));
    (y, indices)
}

/// Adds each window's gradient to the pixel that its maximum came from.
pub(super) fn scatter<T: Element>(g: &Geometry, indices: &[u32], dy: &[T]) -> Vec<T> {
    let mut dx = vec![T::ZERO; g.batch * g.channels * g.in_plane()];
    dx.par_chunks_mut(g.in_plane())
        .zip(indices.par_chunks(g.out_plane()))
        .zip(dy.par_chunks(g.out_plane()))
        .with_min_len((BLOCK / g.out_plane()).max(1))
        .for_each(|((dx, indices), dy)| {
            for (index, dy) in indices.iter().zip(dy) {
                dx[*index as usize] += *dy;
            }
        });
    dx
}
