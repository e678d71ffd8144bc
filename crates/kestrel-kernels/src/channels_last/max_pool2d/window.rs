//! The taps of a channels-last pooling's windows that lie inside the image.

use crate::max_pool2d::geometry::Geometry;
use std::ops::Range;

impl Geometry {
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
    pub(super) fn taps_inside(&self, i: usize, size: usize) -> Range<usize> {
        let start = self.padding.saturating_sub(i * self.stride);
        let end = (size + self.padding - i * self.stride).min(self.kernel);
        start..end
    }

    /// The pixel along one axis under tap `tap` of window `i`; the tap must lie inside the image.
    pub(super) fn pixel(&self, i: usize, tap: usize) -> usize {
        i * self.stride + tap - self.padding
    }
}
