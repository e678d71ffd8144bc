//! Panels: how channels are laid out in the second factor and the result of the 36 products.
//!
//! A panel is two vectors of channels wide; the last may be one. The lanes beyond the channels hold zeros. A panel's
//! 36 planes follow one another, each with a cache line to spare: planes a power of two apart would fall into the same
//! cache sets.

use super::shape::POINTS;
use super::workspace::LINE;
use crate::simd::Simd;

/// The layout of `channels` channels as `[panel, point, depth, lane]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels {
    /// Channels, without the lanes that fill the last vector.
    pub(super) channels: usize,
    /// Rows of a plane.
    pub(super) depth: usize,
    lanes: usize,
}

impl Panels {
    pub(super) fn new<S: Simd>(_s: S, channels: usize, depth: usize) -> Self {
        Self {
            channels,
            depth,
            lanes: S::LANES,
        }
    }

    /// Channels in a full panel.
    pub(super) fn full_width(&self) -> usize {
        2 * self.lanes
    }

    pub(super) fn count(&self) -> usize {
        self.channels.div_ceil(self.full_width())
    }

    /// Channels with the lanes that fill the last vector.
    pub(super) fn padded(&self) -> usize {
        self.channels.next_multiple_of(self.lanes)
    }

    /// Lanes of a row of `panel`: two vectors, or one.
    pub(super) fn width(&self, panel: usize) -> usize {
        self.full_width().min(self.padded() - panel * self.full_width())
    }

    /// Channels of `panel`, without filling lanes.
    pub(super) fn used(&self, panel: usize) -> usize {
        self.full_width().min(self.channels - panel * self.full_width())
    }

    /// Floats from a plane to the next.
    pub(super) fn plane(&self) -> usize {
        self.depth * self.full_width() + LINE
    }

    /// Floats from a panel to the next.
    pub(super) fn stride(&self) -> usize {
        POINTS * self.plane()
    }

    /// Floats of all panels.
    pub(super) fn len(&self) -> usize {
        self.count() * self.stride()
    }
}
