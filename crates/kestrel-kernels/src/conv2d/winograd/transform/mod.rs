//! One-dimensional transforms: how a row of outputs comes from fewer products than it has taps.
//!
//! With `Bᵀ`, `G` and `Aᵀ` a row of outputs is `Aᵀ[(G g) ⊙ (Bᵀ d)]`; in two dimensions each matrix is applied from both
//! sides.

mod strided;
mod unit;

pub(super) use strided::{Strided, StridedBack};
pub(super) use unit::Unit;

use crate::simd::Simd;

/// Inputs under a tile, points, or weight planes, at most, along one dimension.
pub(super) const MOST_POINTS: usize = 6;
/// Outputs of a tile, at most, along one dimension.
pub(super) const MOST_OUTPUTS: usize = 4;

/// A vector of channels for each input or point of a row; those beyond a transform's number are not looked at.
pub(super) type Points<S> = [<S as Simd>::V; MOST_POINTS];
/// A vector of channels for each output of a row; those beyond a transform's number are not looked at.
pub(super) type Outputs<S> = [<S as Simd>::V; MOST_OUTPUTS];

/// The transforms of one kind of convolution; all numbers are along one dimension.
pub(super) trait Transform: Copy + Send + Sync {
    /// Outputs of a tile.
    const TILE: usize;
    /// Inputs under a tile.
    const PATCH: usize;
    /// Products of a tile.
    const POINTS: usize;
    /// Transformed weights: points may share one.
    const PLANES: usize;
    /// The transformed weight of each point.
    const PLANE_OF: [usize; MOST_POINTS];

    /// Products of a tile in two dimensions.
    const ALL_POINTS: usize = Self::POINTS * Self::POINTS;
    /// Transformed weights in two dimensions.
    const ALL_PLANES: usize = Self::PLANES * Self::PLANES;

    /// Inputs that a tile shares with the next.
    const OVERLAP: usize;

    /// The points that a tile needs of whose outputs the first `extent` are wanted, 1 to [`TILE`](Self::TILE): the first so
    /// many.
    fn points(extent: usize) -> usize;

    /// `Bᵀ d`: inputs to the points of a tile of this extent; inputs that no such tile has are zeros.
    fn input<S: Simd>(s: S, d: Points<S>, extent: usize) -> Points<S>;

    /// `Aᵀ m`: points to outputs of a tile of this extent; points that it does not need are zeros.
    fn output<S: Simd>(s: S, m: Points<S>, extent: usize) -> Outputs<S>;

    /// `G g`: weights to planes.
    fn weight<S: Simd>(s: S, g: [S::V; 3]) -> Points<S>;
}

/// The adjoints, for the weights' gradient.
pub(super) trait Adjoint: Transform {
    /// `A y`: gradients of outputs to points, the adjoint of [`output`](Transform::output); gradients beyond the extent are
    /// zeros.
    fn output_adjoint<S: Simd>(s: S, y: Outputs<S>, extent: usize) -> Points<S>;

    /// `Gᵀ m`: points to the weights' gradients, the adjoint of [`weight`](Transform::weight), each point having a weight of
    /// its own.
    fn weight_adjoint<S: Simd>(s: S, m: Points<S>) -> [S::V; 3];
}

/// The `y`th element of each of `lines`: a row where lines are columns.
#[inline(always)]
pub(super) fn across<V: Copy, const LEN: usize, const LINES: usize>(lines: &[[V; LEN]; LINES], y: usize) -> [V; LINES] {
    let mut row = [lines[0][y]; LINES];
    for (element, line) in row.iter_mut().zip(lines) {
        *element = line[y];
    }
    row
}
