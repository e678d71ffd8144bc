//! Sizes of a 3x3 stride-1 convolution and the 4x4 tiles that cover its output.

use std::ops::Range;

/// Output rows and columns of a tile.
pub(super) const TILE: usize = 4;
/// Input rows and columns that a tile of output reads: `TILE + 3 - 1`.
pub(super) const PATCH: usize = 6;
/// Products a tile takes, one for each element of the transformed patch.
pub(super) const POINTS: usize = PATCH * PATCH;

/// Sizes of a 3x3 convolution with stride 1: input `[N, H, W, C]`, output `[N, P, Q, K]`, weight `[K, C, 3, 3]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    k: usize,
    padding: usize,
}

/// Sizes for which there is no such convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// The padding is more than 2.
    #[error("expected padding of at most 2, got {got}")]
    PaddingTooLarge {
        /// The padding given.
        got: usize,
    },
    /// The padded image is smaller than the 3x3 kernel.
    #[error("expected a padded image of at least 3x3, got {height}x{width}")]
    ImageTooSmall {
        /// Padded height.
        height: usize,
        /// Padded width.
        width: usize,
    },
    /// A size is zero, or a buffer would not fit the address space.
    #[error("expected sizes of at least 1 whose product fits, got {sizes:?}")]
    Degenerate {
        /// `[N, H, W, C, K]`.
        sizes: [usize; 5],
    },
}

impl Shape {
    /// The shape for input `[n, h, w, c]`, `k` output channels, and `padding` zeros on each side.
    ///
    /// # Errors
    /// - [`ShapeError::PaddingTooLarge`] if `padding > 2`.
    /// - [`ShapeError::ImageTooSmall`] if `h + 2 * padding < 3` or `w + 2 * padding < 3`.
    /// - [`ShapeError::Degenerate`] if a size is 0, or the buffers cannot be addressed.
    pub fn new([n, h, w, c]: [usize; 4], k: usize, padding: usize) -> Result<Self, ShapeError> {
        let sizes = [n, h, w, c, k];
        if padding > 2 {
            return Err(ShapeError::PaddingTooLarge { got: padding });
        }
        // Nothing that is computed from the sizes later exceeds this bound: images grow by at most 4 in each direction
        // and round up to a tile, channels round up to two vectors.
        let bound = [
            n,
            h.saturating_add(8),
            w.saturating_add(8),
            c.saturating_add(64),
            k.saturating_add(64),
            64 * 8,
        ]
        .into_iter()
        .try_fold(1_usize, usize::checked_mul);
        if sizes.contains(&0) || bound.is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(ShapeError::Degenerate { sizes });
        }
        let (height, width) = (h + 2 * padding, w + 2 * padding);
        if height < 3 || width < 3 {
            return Err(ShapeError::ImageTooSmall { height, width });
        }
        Ok(Self { n, h, w, c, k, padding })
    }

    /// `[N, H, W, C]`.
    pub fn input(&self) -> [usize; 4] {
        [self.n, self.h, self.w, self.c]
    }

    /// `[N, P, Q, K]`.
    pub fn output(&self) -> [usize; 4] {
        [
            self.n,
            self.h + 2 * self.padding - 2,
            self.w + 2 * self.padding - 2,
            self.k,
        ]
    }

    /// `[K, C, 3, 3]`.
    pub fn weight(&self) -> [usize; 4] {
        [self.k, self.c, 3, 3]
    }

    /// Zeros on each side of the image.
    pub fn padding(&self) -> usize {
        self.padding
    }

    /// Floating-point operations of a direct convolution, a multiplication and an addition counting as two.
    pub fn direct_flops(&self) -> f64 {
        let [n, p, q, k] = self.output();
        2.0 * 9.0 * self.c as f64 * (n * p * q * k) as f64
    }

    /// The convolution that carries gradients back: from `[N, P, Q, K]` to `[N, H, W, C]`, padding `2 - padding`.
    pub(super) fn transposed(&self) -> Self {
        let [n, h, w, c] = self.output();
        Self {
            n,
            h,
            w,
            c,
            k: self.c,
            padding: 2 - self.padding,
        }
    }

    /// Tiles down and across one image's output.
    fn grid(&self) -> [usize; 2] {
        let [_, p, q, _] = self.output();
        [p.div_ceil(TILE), q.div_ceil(TILE)]
    }

    /// Tiles of the whole batch.
    pub(super) fn tiles(&self) -> usize {
        let [down, across] = self.grid();
        self.n * down * across
    }

    /// Tiles in `range`, counted across, then down, then by image.
    #[inline(always)]
    pub(super) fn tiles_in(&self, range: Range<usize>) -> Tiles {
        let [down, across] = self.grid();
        let row = range.start / across;
        let next = Tile {
            image: row / down,
            y: TILE * (row % down),
            x: TILE * (range.start % across),
        };
        Tiles {
            next,
            left: range.len(),
            end: [TILE * down, TILE * across],
        }
    }

    /// Rows of the patch that lie inside the image, for a tile whose output starts at row `y`.
    #[inline(always)]
    pub(super) fn patch_rows(&self, y: usize) -> Range<usize> {
        inside(y, self.padding, self.h)
    }

    /// Columns of the patch that lie inside the image, for a tile whose output starts at column `x`.
    #[inline(always)]
    pub(super) fn patch_columns(&self, x: usize) -> Range<usize> {
        inside(x, self.padding, self.w)
    }

    /// Rows and columns of the tile that lie inside the output.
    #[inline(always)]
    pub(super) fn tile_extent(&self, tile: Tile) -> [usize; 2] {
        let [_, p, q, _] = self.output();
        [TILE.min(p - tile.y), TILE.min(q - tile.x)]
    }
}

/// Positions `i` of a patch starting at `start - padding` for which that plus `i` is in `0..size`.
#[inline(always)]
fn inside(start: usize, padding: usize, size: usize) -> Range<usize> {
    let first = padding.saturating_sub(start).min(PATCH);
    let last = (size + padding).saturating_sub(start).min(PATCH);
    first..last.max(first)
}

/// Consecutive tiles, by steps instead of divisions.
#[derive(Clone, Debug)]
pub(super) struct Tiles {
    next: Tile,
    left: usize,
    /// Rows and columns of an image's tiles.
    end: [usize; 2],
}

impl Iterator for Tiles {
    type Item = Tile;

    #[inline(always)]
    fn next(&mut self) -> Option<Tile> {
        self.left = self.left.checked_sub(1)?;
        let tile = self.next;
        self.next.x += TILE;
        if self.next.x == self.end[1] {
            self.next.x = 0;
            self.next.y += TILE;
            if self.next.y == self.end[0] {
                self.next.y = 0;
                self.next.image += 1;
            }
        }
        Some(tile)
    }
}

/// Where a tile lies: image of the batch, first output row and column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) image: usize,
    pub(super) y: usize,
    pub(super) x: usize,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn faults_are_told_apart() {
        assert_eq!(
            Shape::new([1, 8, 8, 1], 1, 3),
            Err(ShapeError::PaddingTooLarge { got: 3 })
        );
        assert_eq!(
            Shape::new([1, 2, 8, 1], 1, 0),
            Err(ShapeError::ImageTooSmall { height: 2, width: 8 })
        );
        assert!(matches!(
            Shape::new([0, 8, 8, 1], 1, 1),
            Err(ShapeError::Degenerate { .. })
        ));
        assert!(matches!(
            Shape::new([usize::MAX, 8, 8, 1], 1, 1),
            Err(ShapeError::Degenerate { .. })
        ));
    }

    #[test]
    fn the_transposed_convolution_leads_back() {
        for padding in 0..=2 {
            let shape = Shape::new([2, 7, 9, 3], 5, padding).unwrap();
            assert_eq!(shape.transposed().input(), shape.output());
            assert_eq!(shape.transposed().output(), shape.input());
        }
    }

    #[test]
    fn patches_know_what_lies_inside() {
        let shape = Shape::new([1, 7, 1, 1], 1, 1).unwrap();
        assert_eq!([shape.patch_rows(0), shape.patch_rows(4)], [1..6, 0..4]);
        assert_eq!(shape.patch_columns(0), 1..2);
        assert_eq!(shape.tile_extent(Tile { image: 0, y: 4, x: 0 }), [3, 1]);
    }

    #[test]
    fn tiles_are_counted_across_then_down_then_by_image() {
        let shape = Shape::new([3, 9, 5, 1], 1, 1).unwrap();
        let all: Vec<Tile> = shape.tiles_in(0..shape.tiles()).collect();
        let want = (0..3).flat_map(|image| [0, 4, 8].map(|y| [0, 4].map(|x| Tile { image, y, x })));
        assert_eq!(all, want.flatten().collect::<Vec<_>>());
        for start in 0..all.len() {
            assert_eq!(shape.tiles_in(start..all.len()).collect::<Vec<_>>(), all[start..]);
        }
    }
}
