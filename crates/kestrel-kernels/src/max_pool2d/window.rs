//! The windows of a pooling, and the kernels over them; one plane is one piece of work.

use super::OP;
use crate::element::{self, Element};
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;

/// Output elements below which planes are not shared out one by one.
const BLOCK: usize = 1 << 12;

/// Sizes of input, window and output. Every window covers at least one pixel, since `2 padding ≤ kernel`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) batch: usize,
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
}

impl Geometry {
    pub(super) fn new(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Self> {
        let (batch, channels, height, width) = element::dims4(OP, x, "[N, C, H, W]")?;
        for (argument, value) in [("kernel", kernel), ("stride", stride)] {
            if value == 0 {
                return Err(Error::InvalidArgument {
                    op: OP,
                    argument,
                    expected: "at least 1",
                    got: 0.0,
                });
            }
        }
        if padding > kernel / 2 {
            return Err(Error::InvalidArgument {
                op: OP,
                argument: "padding",
                expected: "at most half of the kernel",
                got: padding as f64,
            });
        }
        let out = |input: usize| match (input + 2 * padding).checked_sub(kernel) {
            Some(free) => Ok(free / stride + 1),
            None => Err(Error::KernelTooLarge {
                op: OP,
                kernel,
                input: input + 2 * padding,
            }),
        };
        let (out_height, out_width) = (out(height)?, out(width)?);
        Ok(Self {
            batch,
            channels,
            height,
            width,
            out_height,
            out_width,
            kernel,
            stride,
            padding,
        })
    }

    fn in_plane(&self) -> usize {
        self.height * self.width
    }

    fn out_plane(&self) -> usize {
        self.out_height * self.out_width
    }

    /// The pixels along one axis that window `i` covers, of `0..size`.
    fn covered(&self, i: usize, size: usize) -> (usize, usize) {
        let start = i * self.stride;
        (
            start.saturating_sub(self.padding),
            (start + self.kernel - self.padding).min(size),
        )
    }

    /// Calls `visit` with each window's number, maximum and the maximum's pixel.
    fn for_each_window<T: Element>(&self, plane: &[T], mut visit: impl FnMut(usize, T, usize)) {
        for p in 0..self.out_height {
            let (top, bottom) = self.covered(p, self.height);
            for q in 0..self.out_width {
                let (left, right) = self.covered(q, self.width);
                let (mut max, mut index) = (T::NEG_INFINITY, top * self.width + left);
                for row in top..bottom {
                    let start = row * self.width;
                    for (column, value) in plane[start + left..start + right].iter().enumerate() {
                        // PyTorch's test: a value that is not equal to itself is NaN.
                        #[allow(clippy::eq_op)]
                        if *value > max || *value != *value {
                            (max, index) = (*value, start + left + column);
                        }
                    }
                }
                visit(p * self.out_width + q, max, index);
            }
        }
    }
}

/// The maximum of each window.
pub(super) fn maxima<T: Element>(g: &Geometry, x: &[T]) -> Vec<T> {
    let mut y = vec![T::ZERO; g.batch * g.channels * g.out_plane()];
    y.par_chunks_mut(g.out_plane())
        .zip(x.par_chunks(g.in_plane()))
        .with_min_len((BLOCK / g.out_plane()).max(1))
        .for_each(|(y, x)| g.for_each_window(x, |window, max, _| y[window] = max));
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
        .for_each(|((y, indices), x)| {
            g.for_each_window(x, |window, max, index| {
                y[window] = max;
                indices[window] = index as u32;
            });
        });
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
