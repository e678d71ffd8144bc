//! The sizes of a pooling, checked once; every kernel of either layout relies on them.

use crate::element;
use crate::{Error, Result};
use candle_core::Tensor;

/// Sizes of input, window and output. Every window covers at least one pixel, since `2 padding ≤ kernel`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) out_height: usize,
    pub(crate) out_width: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl Geometry {
    /// Of `x` `[N, C, H, W]`.
    pub(crate) fn channels_first(
        op: &'static str,
        x: &Tensor,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Result<Self> {
        let (batch, channels, height, width) = element::dims4(op, x, "[N, C, H, W]")?;
        Self::new(op, [batch, channels, height, width], kernel, stride, padding)
    }

    /// Of `x` `[N, H, W, C]`.
    pub(crate) fn channels_last(
        op: &'static str,
        x: &Tensor,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Result<Self> {
        let (batch, height, width, channels) = element::dims4(op, x, "[N, H, W, C]")?;
        Self::new(op, [batch, channels, height, width], kernel, stride, padding)
    }

    fn new(
        op: &'static str,
        [batch, channels, height, width]: [usize; 4],
        kernel: usize,
        stride: usize,
        padding: usize,
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
        let out = |input: usize| {
            let Some(padded) = input.checked_add(2 * padding) else {
                return Err(Error::InvalidArgument {
                    op,
                    argument: "padding",
                    expected: "small enough for the padded input's size to be a number",
                    got: padding as f64,
                });
            };
            match padded.checked_sub(kernel) {
                Some(free) => Ok(free / stride + 1),
                None => Err(Error::KernelTooLarge {
                    op,
                    kernel,
                    input: padded,
                }),
            }
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
}
