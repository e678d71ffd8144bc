//! The sizes of one convolution, checked once; every kernel relies on them.

use super::Conv2dConfig;
use crate::element;
use crate::{Error, Result};
use candle_core::Tensor;

/// Sizes of input, kernel and output; all at least 1 but the batch, which may be 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) in_channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) out_channels: usize,
    pub(crate) kernel_height: usize,
    pub(crate) kernel_width: usize,
    pub(crate) out_height: usize,
    pub(crate) out_width: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) dilation: usize,
    pub(crate) groups: usize,
}

impl Geometry {
    pub(crate) fn new(x: &Tensor, weight: &Tensor, config: &Conv2dConfig) -> Result<Self> {
        const OP: &str = "conv2d";
        let Conv2dConfig {
            stride,
            padding,
            dilation,
            groups,
        } = *config;
        for (argument, value) in [("stride", stride), ("dilation", dilation), ("groups", groups)] {
            if value == 0 {
                return Err(Error::InvalidArgument {
                    op: OP,
                    argument,
                    expected: "at least 1",
                    got: 0.0,
                });
            }
        }
        let (batch, in_channels, height, width) = element::dims4("conv2d input", x, "[N, C, H, W]")?;
        let (out_channels, group_channels, kernel_height, kernel_width) =
            element::dims4("conv2d weight", weight, "[K, C/G, R, S]")?;
        if out_channels == 0 || group_channels.checked_mul(groups) != Some(in_channels) {
            return Err(Error::ShapeMismatch {
                op: "conv2d weight",
                expected: format!("[K, {in_channels}/{groups}, R, S]"),
                got: weight.dims().to_vec(),
            });
        }
        if out_channels % groups != 0 {
            return Err(Error::InvalidArgument {
                op: OP,
                argument: "groups",
                expected: "a divisor of the output channels",
                got: groups as f64,
            });
        }
        let out_height = out_size(height, kernel_height, config)?;
        let out_width = out_size(width, kernel_width, config)?;
        // An empty batch too: its sizes are multiplied all the same.
        let output = [batch.max(1), out_channels, out_height, out_width];
        if element::count(output).is_none() {
            return Err(too_much_padding(padding));
        }
        Ok(Self {
            batch,
            in_channels,
            height,
            width,
            out_channels,
            kernel_height,
            kernel_width,
            out_height,
            out_width,
            stride,
            padding,
            dilation,
            groups,
        })
    }

    /// Pixels of an input channel.
    pub(crate) fn in_positions(&self) -> usize {
        self.height * self.width
    }

    /// Pixels of an output channel.
    pub(crate) fn out_positions(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Input channels of a group.
    pub(crate) fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Output channels of a group.
    pub(crate) fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    /// Taps of the kernel.
    pub(crate) fn taps(&self) -> usize {
        self.kernel_height * self.kernel_width
    }

    /// Elements of a patch, which is a row of a group's weight matrix.
    pub(crate) fn patch(&self) -> usize {
        self.group_in() * self.taps()
    }

    /// Whether the patches are the image itself: a 1x1 kernel with stride 1 and no padding.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.taps() == 1 && self.stride == 1 && self.padding == 0
    }
}

/// `(input + 2 padding − dilation (kernel − 1) − 1) / stride + 1`.
fn out_size(input: usize, kernel: usize, config: &Conv2dConfig) -> Result<usize> {
    let extent = config.dilation.saturating_mul(kernel - 1).saturating_add(1);
    let padded = config.padding.checked_mul(2).and_then(|both| both.checked_add(input));
    let Some(padded) = padded else {
        return Err(too_much_padding(config.padding));
    };
    match padded.checked_sub(extent) {
        Some(free) => Ok(free / config.stride + 1),
        None => Err(Error::KernelTooLarge {
            op: "conv2d",
            kernel: extent,
            input: padded,
        }),
    }
}

/// The fault of an output that no memory holds: images and weights fit, so it is the padding's.
fn too_much_padding(padding: usize) -> Error {
    Error::InvalidArgument {
        op: "conv2d",
        argument: "padding",
        expected: "small enough for an output of less than 2^60 elements",
        got: padding as f64,
    }
}
