//! What each point of a transform is multiplied with, and for which tiles.

use std::marker::PhantomData;
use std::ops::Range;

use super::shape::Shape;
use super::transform::Transform;

/// The points of a range of tiles.
pub(super) struct Points<T> {
    transform: PhantomData<T>,
    /// Points that tiles at an edge need, down and across.
    edge: [usize; 2],
    /// Tiles that a point is needed for, by whether those at an edge do without it, down and across.
    runs: [[Vec<Range<usize>>; 2]; 2],
}

impl<T: Transform> Points<T> {
    pub(super) fn new(shape: &Shape, tiles: Range<usize>) -> Self {
        let runs = [false, true].map(|rows| [false, true].map(|columns| shape.runs(tiles.clone(), [rows, columns])));
        Self {
            transform: PhantomData,
            edge: shape.edge().map(T::points),
            runs,
        }
    }

    /// The plane of transformed weights of a point.
    pub(super) fn plane(&self, point: usize) -> usize {
        T::PLANE_OF[point / T::POINTS] * T::PLANES + T::PLANE_OF[point % T::POINTS]
    }

    /// The tiles that a point is needed for, counted from the first of the range.
    pub(super) fn runs(&self, point: usize) -> &[Range<usize>] {
        let (rows, columns) = (point / T::POINTS, point % T::POINTS);
        &self.runs[usize::from(rows >= self.edge[0])][usize::from(columns >= self.edge[1])]
    }
}
