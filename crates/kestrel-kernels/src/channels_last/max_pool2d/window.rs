//! The sizes of a pooling, checked once, and the taps of a window that lie inside the image.

use super::OP;
use crate::element;
use crate::{Error, Result};
use candle_core::Tensor;
use std::ops::Range;

/// Sizes of input, window and output. Every window covers at least one pixel, since `2 padding ≤ kernel`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) batch: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
}

impl Geometry {
    pub(super) fn new(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Self> {
        let (batch, height, width, channels) = element::dims4(OP, x, "[N, H, W, C]")?;
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
            height,
            width,
            channels,
            out_height,
            out_width,
            kernel,
            stride,
            padding,
        })
    }

    /// Whether the kernel writes each tap's number, `r · kernel + s`, in a byte.
    pub(super) fn taps_fit_a_byte(&self) -> bool {
        self.kernel <= 16
    }

    /// Whether windows lie side by side, two pixels wide and high.
    pub(super) fn halves(&self) -> bool {
        (self.kernel, self.stride, self.padding) == (2, 2, 0)
    }

    /// Elements of an input row, `[W, C]`.
    pub(super) fn in_row(&self) -> usize {
        self.width * self.channels
    }

    /// Elements of an output row, `[Q, C]`.
    pub(super) fn out_row(&self) -> usize {
        self.out_width * self.channels
    }

    /// The taps along one axis of `size` pixels at which window `i` lies inside the image; not empty.
    pub(super) fn inside(&self, i: usize, size: usize) -> Range<usize> {
        let start = self.padding.saturating_sub(i * self.stride);
        let end = (size + self.padding - i * self.stride).min(self.kernel);
        start..end
    }

    /// The pixel along one axis under tap `tap` of window `i`; the tap must lie inside the image.
    pub(super) fn pixel(&self, i: usize, tap: usize) -> usize {
        i * self.stride + tap - self.padding
    }
}
