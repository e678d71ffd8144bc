//! The tiles of a shape, in the order they are worked on, and which of them need which points.

use std::ops::Range;

use super::shape::{Numbers, Shape};

/// Where a tile lies: image of the batch, first output row and column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) image: usize,
    pub(super) y: usize,
    pub(super) x: usize,
}

impl Shape {
    /// Rows and columns inside the output of the last tiles down and across.
    pub(super) fn edge(&self) -> [usize; 2] {
        let [_, p, q, _] = self.output();
        let tile = self.form().numbers().tile;
        [p, q].map(|size| (size - 1) % tile + 1)
    }

    /// The parts of the grid whose tiles need the same points: the whole tiles, those at the right edge, those at the lower
    /// one, and those in the corner; a part without tiles is empty.
    #[inline(always)]
    fn regions(&self) -> [Region; 4] {
        let Numbers { tile, points, .. } = self.form().numbers();
        let [n, ..] = self.input();
        let (grid, edge) = (self.grid(), self.edge());
        let whole = [0, 1].map(|i| grid[i] - usize::from(points(edge[i]) < points(tile)));
        let mut first = 0;
        [[false, false], [false, true], [true, false], [true, true]].map(|at_edge| {
            let [rows, columns] = [0, 1].map(|i| if at_edge[i] { whole[i]..grid[i] } else { 0..whole[i] });
            let region = Region {
                first,
                len: n * rows.len() * columns.len(),
                at_edge,
                rows,
                columns,
            };
            first += region.len;
            region
        })
    }

    /// Tiles in `range`. They are counted region by region, so that those that need the same points lie together, and in a
    /// region across, then down, then by image.
    #[inline(always)]
    pub(super) fn tiles_in(&self, range: Range<usize>) -> Tiles {
        let [images, ..] = self.input();
        let regions = self.regions();
        let region = regions
            .iter()
            .rposition(|region| region.len > 0 && region.first <= range.start)
            .unwrap_or(0);
        let Region {
            first, rows, columns, ..
        } = &regions[region];
        let (row, x) = (
            (range.start - first) / columns.len(),
            (range.start - first) % columns.len(),
        );
        let size = self.form().numbers().tile;
        Tiles {
            next: Tile {
                image: row / rows.len(),
                y: size * (rows.start + row % rows.len()),
                x: size * (columns.start + x),
            },
            left: range.len(),
            images,
            size,
            region,
            regions,
        }
    }

    /// The parts of `tiles` that a point is needed for: all, or those that are `whole` in rows or columns, that is need all
    /// points there. Counted from the first of `tiles`.
    pub(super) fn runs(&self, tiles: Range<usize>, whole: [bool; 2]) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for region in self.regions() {
            let [start, end] =
                [region.first, region.first + region.len].map(|at| at.clamp(tiles.start, tiles.end) - tiles.start);
            if start == end || [0, 1].iter().any(|&i| whole[i] && region.at_edge[i]) {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.end == start => run.end = end,
                _ => runs.push(start..end),
            }
        }
        runs
    }

    /// Rows and columns of the tile that lie inside the output.
    #[inline(always)]
    pub(super) fn tile_extent(&self, tile: Tile) -> [usize; 2] {
        let [_, p, q, _] = self.output();
        let size = self.form().numbers().tile;
        [size.min(p - tile.y), size.min(q - tile.x)]
    }
}

/// Tiles of an image's grid that need the same points.
#[derive(Clone, Debug)]
struct Region {
    /// The number of its first tile.
    first: usize,
    /// Its tiles of all images.
    len: usize,
    /// Whether its tiles need fewer points than others, down and across.
    at_edge: [bool; 2],
    /// Rows and columns of the grid.
    rows: Range<usize>,
    columns: Range<usize>,
}

/// Consecutive tiles, by steps instead of divisions.
#[derive(Clone, Debug)]
pub(super) struct Tiles {
    next: Tile,
    left: usize,
    images: usize,
    /// Outputs of a tile along one dimension.
    size: usize,
    /// Where `next` lies.
    region: usize,
    regions: [Region; 4],
}

impl Tiles {
    /// The tile after the one that came last, be it in the range or not; after the last of all, any.
    #[inline(always)]
    pub(super) fn upcoming(&self) -> Tile {
        self.next
    }
}

impl Iterator for Tiles {
    type Item = Tile;

    #[inline(always)]
    fn next(&mut self) -> Option<Tile> {
        self.left = self.left.checked_sub(1)?;
        let tile = self.next;
        let Region { rows, columns, .. } = &self.regions[self.region];
        self.next.x += self.size;
        if self.next.x < self.size * columns.end {
            return Some(tile);
        }
        self.next.x = self.size * columns.start;
        self.next.y += self.size;
        if self.next.y < self.size * rows.end {
            return Some(tile);
        }
        self.next.y = self.size * rows.start;
        self.next.image += 1;
        if self.next.image < self.images {
            return Some(tile);
        }
        let mut later = self.regions.iter().enumerate().skip(self.region + 1);
        if let Some((index, region)) = later.find(|(_, region)| region.len > 0) {
            self.region = index;
            self.next = Tile {
                image: 0,
                y: self.size * region.rows.start,
                x: self.size * region.columns.start,
            };
        }
        Some(tile)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn strided_tiles_at_an_edge_lie_together() {
        // Outputs of 3x5, in tiles of 2x2.
        let shape = Shape::strided([3, 6, 10, 1], 1).unwrap();
        let all: Vec<Tile> = shape.tiles_in(0..shape.tiles()).collect();
        let region = |y: usize, xs: &[usize]| -> Vec<Tile> {
            (0..3)
                .flat_map(|image| xs.iter().map(move |&x| Tile { image, y, x }))
                .collect()
        };
        let want = [region(0, &[0, 2]), region(0, &[4]), region(2, &[0, 2]), region(2, &[4])];
        assert_eq!(all, want.concat());
        for start in 0..=all.len() {
            assert_eq!(shape.tiles_in(start..all.len()).collect::<Vec<_>>(), all[start..]);
        }
        let runs = |tiles, whole| -> Vec<_> {
            let runs = shape.runs(tiles, whole).into_iter();
            runs.map(|run| (run.start, run.end)).collect()
        };
        assert_eq!(runs(0..18, [false, false]), [(0, 18)]);
        assert_eq!(runs(0..18, [true, false]), [(0, 9)]);
        assert_eq!(runs(2..18, [false, true]), [(0, 4), (7, 13)]);
        assert_eq!(runs(2..18, [true, true]), [(0, 4)]);
        assert_eq!(runs(7..9, [false, true]), []);
    }

    #[test]
    fn edges_that_need_all_points_are_no_region() {
        for ([h, w], edge, whole) in [
            ([8, 8], [4, 4], 4),
            ([7, 8], [3, 4], 2),
            ([8, 5], [4, 1], 2),
            ([6, 6], [2, 2], 1),
        ] {
            let shape = Shape::new([1, h, w, 1], 1, 1).unwrap();
            assert_eq!(shape.edge(), edge);
            let runs = shape.runs(0..4, [true, true]);
            assert_eq!(runs.iter().map(ExactSizeIterator::len).sum::<usize>(), whole);
        }
        // The gradient's way needs all points for three of four.
        let back = Shape::strided([1, 7, 7, 1], 1).unwrap().transposed();
        assert_eq!((back.edge(), back.runs(0..4, [true, true]).len()), ([3, 3], 1));
    }

    #[test]
    fn whole_tiles_are_counted_across_then_down_then_by_image() {
        let shape = Shape::new([3, 12, 8, 1], 1, 1).unwrap();
        let all: Vec<Tile> = shape.tiles_in(0..shape.tiles()).collect();
        let want = (0..3).flat_map(|image| [0, 4, 8].map(|y| [0, 4].map(|x| Tile { image, y, x })));
        assert_eq!(all, want.flatten().collect::<Vec<_>>());
        for start in 0..all.len() {
            assert_eq!(shape.tiles_in(start..all.len()).collect::<Vec<_>>(), all[start..]);
        }
    }
}
