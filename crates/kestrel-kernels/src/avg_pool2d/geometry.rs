//! The windows of an average pooling along each axis, worked out and checked once; every kernel of either layout relies
//! on them.
//!
//! A window is a rectangle, and what its sum is divided by is a product of a row's and a column's number. So one axis is
//! described by itself, and windows of one size and adaptive ones differ in nothing else.

use crate::{Error, Result};
use std::ops::Range;

/// Sizes of input, windows and output.
#[derive(Clone, Debug)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    pub(crate) rows: Axis,
    pub(crate) columns: Axis,
}

#[cfg(feature = "cuda")]
impl Geometry {
    /// Whether the only window is the whole image, and each pixel counts once.
    pub(crate) fn is_global(&self) -> bool {
        let is_whole = |axis: &Axis| {
            let pixels = axis.windows_of.len();
            axis.windows.len() == 1 && axis.windows[0] == (0..pixels) && axis.counts == [pixels]
        };
        is_whole(&self.rows) && is_whole(&self.columns)
    }
}

/// The windows along one axis; at least one, over an input of at least one pixel.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    /// The pixels of each window, all inside the input and never none. Neither starts nor ends decrease.
    pub(crate) windows: Vec<Range<usize>>,
    /// The windows of each pixel, which may be none.
    pub(crate) windows_of: Vec<Range<usize>>,
    /// How many pixels each window counts for, at least 1.
    pub(crate) counts: Vec<usize>,
}

/// Windows of one size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    kernel: usize,
    stride: usize,
    padding: usize,
    count_include_pad: bool,
}

impl Geometry {
    pub(crate) fn new(batch: usize, channels: usize, rows: Axis, columns: Axis) -> Self {
        Self {
            batch,
            channels,
            rows,
            columns,
        }
    }

    /// Pixels of an image.
    pub(crate) fn pixels(&self) -> usize {
        self.rows.inputs() * self.columns.inputs()
    }

    /// Windows of an image.
    pub(crate) fn outputs(&self) -> usize {
        self.rows.outputs() * self.columns.outputs()
    }

    /// What the sum of window `(p, q)` is divided by.
    pub(crate) fn count(&self, p: usize, q: usize) -> usize {
        self.rows.counts[p] * self.columns.counts[q]
    }
}

impl Axis {
    /// `outputs` windows that cover `size` pixels evenly.
    pub(crate) fn adaptive(op: &'static str, argument: &'static str, size: usize, outputs: usize) -> Result<Self> {
        if outputs == 0 {
            return Err(Error::InvalidArgument {
                op,
                argument,
                expected: "at least 1",
                got: 0.0,
            });
        }
        // In `u128` no product of two sizes overflows; the results are at most `size`.
        let edge = |i: usize| i as u128 * size as u128;
        let windows: Vec<_> = (0..outputs)
            .map(|i| {
                let (start, end) = (edge(i) / outputs as u128, edge(i + 1).div_ceil(outputs as u128));
                start as usize..end as usize
            })
            .collect();
        let counts = windows.iter().map(Range::len).collect();
        Ok(Self::new(size, windows, counts))
    }

    fn new(size: usize, windows: Vec<Range<usize>>, counts: Vec<usize>) -> Self {
        // Starts and ends never decrease, so the windows of a pixel lie side by side.
        let windows_of = (0..size)
            .map(|pixel| {
                let start = windows.partition_point(|window| window.end <= pixel);
                let end = windows.partition_point(|window| window.start <= pixel);
                start..end.max(start)
            })
            .collect();
        Self {
            windows,
            windows_of,
            counts,
        }
    }

    /// Pixels along the axis.
    pub(crate) fn inputs(&self) -> usize {
        self.windows_of.len()
    }

    /// Windows along the axis.
    pub(crate) fn outputs(&self) -> usize {
        self.windows.len()
    }
}

impl Windows {
    pub(crate) fn new(
        op: &'static str,
        kernel: usize,
        stride: usize,
        padding: usize,
        count_include_pad: bool,
    ) -> Result<Self> {
        for (argument, value) in [("kernel", kernel), ("stride", stride)] {
            if value == 0 {
                return Err(Error::InvalidArgument {
                    op,
                    argument,
                    expected: "at least 1",
                    got: 0.0,
                });
            }
        }
        if padding > kernel / 2 {
            return Err(Error::InvalidArgument {
                op,
                argument: "padding",
                expected: "at most half of the kernel",
                got: padding as f64,
            });
        }
        Ok(Self {
            kernel,
            stride,
            padding,
            count_include_pad,
        })
    }

    /// The windows along an axis of `size` pixels. None is empty, since `2 padding ≤ kernel`.
    pub(crate) fn axis(&self, op: &'static str, size: usize) -> Result<Axis> {
        let Self {
            kernel,
            stride,
            padding,
            count_include_pad,
        } = *self;
        let padded = size.saturating_add(2 * padding);
        let Some(free) = padded.checked_sub(kernel) else {
            return Err(Error::KernelTooLarge {
                op,
                kernel,
                input: padded,
            });
        };
        let windows: Vec<_> = (0..=free / stride)
            .map(|i| {
                let start = (i * stride).saturating_sub(padding);
                start..(i * stride + kernel - padding).min(size)
            })
            .collect();
        let count = |window: &Range<usize>| if count_include_pad { kernel } else { window.len() };
        let counts = windows.iter().map(count).collect();
        Ok(Axis::new(size, windows, counts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(size: usize, kernel: usize, stride: usize, padding: usize, count_include_pad: bool) -> Axis {
        Windows::new("", kernel, stride, padding, count_include_pad)
            .unwrap()
            .axis("", size)
            .unwrap()
    }

    #[test]
    fn windows_are_cut_at_the_edges() {
        let pool = axis(5, 3, 2, 1, false);
        assert_eq!(pool.windows, [0..2, 1..4, 3..5]);
        assert_eq!(pool.counts, [2, 3, 2]);
        assert_eq!(pool.windows_of, [0..1, 0..2, 1..2, 1..3, 2..3]);
        assert_eq!(axis(5, 3, 2, 1, true).counts, [3, 3, 3]);
        // Pixels between windows and behind the last one belong to none.
        assert_eq!(axis(6, 1, 3, 0, true).windows_of, [0..1, 1..1, 1..1, 1..2, 2..2, 2..2]);
        assert_eq!(axis(1, 3, 1, 1, false).windows.first(), Some(&(0..1)));
    }

    /// Every pixel of every window knows the window, and no other does.
    #[test]
    fn pixels_know_their_windows() {
        let mut axes = Vec::new();
        for size in 1..12 {
            for outputs in 1..15 {
                axes.push(Axis::adaptive("", "", size, outputs).unwrap());
            }
            for (kernel, stride, padding) in [
                (1, 1, 0),
                (2, 2, 0),
                (3, 2, 1),
                (3, 1, 1),
                (2, 3, 1),
                (4, 1, 2),
                (1, 4, 0),
            ] {
                if size + 2 * padding >= kernel {
                    axes.push(axis(size, kernel, stride, padding, true));
                }
            }
        }
        for axis in axes {
            for (i, window) in axis.windows.iter().enumerate() {
                assert!(!window.is_empty() && axis.counts[i] >= window.len());
                for (pixel, windows) in axis.windows_of.iter().enumerate() {
                    assert_eq!(window.contains(&pixel), windows.contains(&i), "{axis:?}");
                }
            }
        }
    }

    #[test]
    fn sizes_beyond_any_image_do_not_overflow() {
        assert!(
            Windows::new("", usize::MAX, 1, usize::MAX / 2, true)
                .unwrap()
                .axis("", 3)
                .is_ok_and(|axis| axis.outputs() <= 3)
        );
        assert!(Windows::new("", usize::MAX, 1, 0, true).unwrap().axis("", 3).is_err());
    }
}
