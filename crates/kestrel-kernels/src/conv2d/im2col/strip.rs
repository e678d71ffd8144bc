//! How the output positions of a batch are cut into strips.

use crate::conv2d::geometry::Geometry;
use std::ops::Range;

/// Positions of a strip that the products run well at.
const WIDTH: usize = 256;

/// Whole images, or a run of positions of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Strip {
    pub(super) images: Range<usize>,
    /// Positions of each of the images.
    pub(super) positions: Range<usize>,
}

impl Strip {
    /// Columns of the strip's patch matrix.
    pub(super) fn columns(&self) -> usize {
        self.images.len() * self.positions.len()
    }
}

/// Images that share a strip; 1 where an image has enough positions of its own.
pub(super) fn images_per_strip(g: &Geometry) -> usize {
    (WIDTH / g.out_positions()).max(1)
}

/// Positions of a strip of one image.
pub(super) fn positions_per_strip(g: &Geometry) -> usize {
    let strips = g.out_positions().div_ceil(WIDTH + WIDTH / 2).max(1);
    g.out_positions()
        .div_ceil(strips)
        .next_multiple_of(8)
        .min(g.out_positions())
}

/// Columns of the widest strip.
pub(super) fn max_columns(g: &Geometry) -> usize {
    images_per_strip(g) * positions_per_strip(g)
}

/// The strips of a batch, in order.
pub(super) fn strips(g: &Geometry) -> Vec<Strip> {
    let (images, width) = (images_per_strip(g), positions_per_strip(g));
    let mut strips = Vec::new();
    for first in (0..g.batch).step_by(images) {
        for start in (0..g.out_positions()).step_by(width) {
            strips.push(Strip {
                images: first..(first + images).min(g.batch),
                positions: start..(start + width).min(g.out_positions()),
            });
        }
    }
    strips
}
