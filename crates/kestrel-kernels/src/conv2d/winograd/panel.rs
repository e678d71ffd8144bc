//! Panels: how channels are laid out in the second factor and the result of the products.
//!
//! A panel is two vectors of channels wide; the last may be one. The lanes beyond the channels hold zeros. A panel's
//! planes follow one another, each with a cache line to spare: planes a power of two apart would fall into the same
//! cache sets.

use std::ops::Range;

use crate::conv2d::workspace::LINE;
use crate::simd::Simd;

/// Floats from a tile to the next of transformed patches of `channels` channels.
///
/// A cache line is added to rows a power of two long: the same channels of many tiles would fall into two or four sets of
/// the nearest cache.
pub(super) fn patch_row<S: Simd>(channels: usize) -> usize {
    let row = channels.next_multiple_of(S::LANES);
    if row.is_multiple_of(256) { row + LINE } else { row }
}

/// Depth of a part of a panel, at most: 590 KB in AVX-512's panels, 295 KB in AVX2's.
const PART_DEPTH: usize = 128;

/// The layout of `channels` channels as `[panel, plane, depth, lane]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels {
    /// Channels, without the lanes that fill the last vector.
    pub(super) channels: usize,
    /// Rows of a plane.
    pub(super) depth: usize,
    /// Planes of a panel: one for each transformed weight, or for each point of its gradient.
    planes: usize,
    lanes: usize,
}

impl Panels {
    pub(super) fn new<S: Simd>(_s: S, channels: usize, depth: usize, planes: usize) -> Self {
        Self {
            channels,
            depth,
            planes,
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
        self.planes * self.plane()
    }

    /// Floats of all panels.
    pub(super) fn len(&self) -> usize {
        self.count() * self.stride()
    }

    /// The whole depth of `panel`.
    pub(super) fn whole(&self, panel: usize) -> Part {
        Part {
            panel,
            depth: 0..self.depth,
            plane: self.plane(),
        }
    }

    /// Consecutive parts of `panel`, whose planes are few enough to stay in a core's cache; all but the last have the
    /// first one's depth.
    pub(super) fn parts(&self, panel: usize) -> impl Iterator<Item = Part> {
        let (depth, step) = (self.depth, self.part_depth());
        let plane = step * self.full_width() + LINE;
        (0..depth).step_by(step).map(move |first| Part {
            panel,
            depth: first..depth.min(first + step),
            plane,
        })
    }

    /// Floats of a part's planes.
    pub(super) fn part_len(&self) -> usize {
        self.planes * (self.part_depth() * self.full_width() + LINE)
    }

    /// Depth of a part: an even share of the whole.
    fn part_depth(&self) -> usize {
        self.depth.div_ceil(self.depth.div_ceil(PART_DEPTH))
    }
}

/// A part of the depth of one panel, as `[plane, depth, lane]`.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) panel: usize,
    pub(super) depth: Range<usize>,
    /// Floats from a plane to the next.
    pub(super) plane: usize,
}
