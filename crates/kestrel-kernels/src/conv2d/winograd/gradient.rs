//! Transforms tiles of the output's gradient for the weights' gradient: `Z = A dY Aᵀ` for each tile and channel.

use std::hint::black_box;
use std::marker::PhantomData;
use std::ops::Range;

use super::shape::Shape;
use super::tiles::Tile;
use super::transform::{self, Adjoint, MOST_OUTPUTS, MOST_POINTS};
use crate::simd::{Kernel, Simd};

/// Where [`transform_gradients`] writes: `z[point * plane + panel * stride + tile * width + lane]`.
///
/// A panel is two vectors of channels, the last one perhaps one vector: its rows are then as narrow.
#[derive(Clone, Copy, Debug)]
pub(super) struct GradientPanels {
    pub(super) z: *mut f32,
    pub(super) plane: usize,
    pub(super) stride: usize,
    /// The first tile's place within the panels.
    pub(super) slot: usize,
}

/// Transforms `tiles` of the gradient `dy` of the shape's output; outputs beyond the image count as zero.
///
/// # Safety
/// - `dy` is readable for the shape's output, and `tiles` are tiles of the shape.
/// - For each point and panel, `slot + tiles.len()` rows are writable, and those from `slot` on used by nobody else
///   during the call.
pub(super) unsafe fn transform_gradients<T: Adjoint, S: Simd>(
    s: S,
    shape: &Shape,
    dy: *const f32,
    tiles: Range<usize>,
    panels: GradientPanels,
) {
    s.vectorize(GradientTiles::<T> {
        transform: PhantomData,
        shape,
        dy,
        tiles,
        panels,
    });
}

/// A range of tiles. Invariant: [`transform_gradients`]'s conditions.
struct GradientTiles<'a, T> {
    transform: PhantomData<T>,
    shape: &'a Shape,
    dy: *const f32,
    tiles: Range<usize>,
    panels: GradientPanels,
}

impl<T: Adjoint> Kernel for GradientTiles<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let [_, p, q, k] = self.shape.output();
        let mut panels = self.panels;
        let corner = |tile: Tile| self.dy.wrapping_add(((tile.image * p + tile.y) * q + tile.x) * k);
        let mut tiles = self.shape.tiles_in(self.tiles.clone());
        while let Some(tile) = tiles.next() {
            let extent = self.shape.tile_extent(tile);
            let tile = GradientTile::<T> {
                transform: PhantomData,
                dy: corner(tile),
                next: corner(tiles.upcoming()),
                strides: [q * k, k],
                channels: k,
                panels,
            };
            if extent == [T::TILE; 2] {
                tile.run(s, [T::TILE; 2]);
            } else {
                tile.run(s, extent);
            }
            tile.rest(s, extent);
            panels.slot += 1;
        }
    }
}

/// One tile. Invariant, kept by [`GradientTiles`]: the tile's gradients inside the image are readable for `channels` floats
/// each, and row `slot` of every panel of every point is writable.
struct GradientTile<T> {
    transform: PhantomData<T>,
    dy: *const f32,
    /// The next tile's gradients.
    next: *const f32,
    /// Floats from a row to the next, and from a column to the next.
    strides: [usize; 2],
    channels: usize,
    panels: GradientPanels,
}

impl<T: Adjoint> GradientTile<T> {
    /// Transforms the whole vectors of the tile, of which `extent` rows and columns are inside the output.
    #[inline(always)]
    fn run<S: Simd>(&self, s: S, extent: [usize; 2]) {
        let mut channel = 0;
        while channel + S::LANES <= self.channels {
            self.prefetch_next(s, channel);
            // SAFETY: a gradient has `channels` floats, of which a whole vector is left from `channel` on.
            self.transform(s, extent, channel, |at| unsafe { s.load(at) });
            channel += S::LANES;
        }
    }

    /// Transforms the channels that are left of the last vector.
    #[inline(always)]
    fn rest<S: Simd>(&self, s: S, extent: [usize; 2]) {
        let lanes = self.channels % S::LANES;
        if lanes > 0 {
            let channel = self.channels - lanes;
            // SAFETY: a gradient has `channels` floats, of which `lanes`, less than a vector, are left.
            self.transform(s, extent, channel, |at| unsafe { s.load_first(at, lanes) });
        }
    }

    /// Transforms one vector of channels; `vector` loads them from a gradient inside the output.
    #[inline(always)]
    fn transform<S: Simd>(
        &self,
        s: S,
        [rows, columns]: [usize; 2],
        channel: usize,
        vector: impl Fn(*const f32) -> S::V,
    ) {
        let mut halves = [[s.zero(); MOST_POINTS]; MOST_OUTPUTS];
        for (x, half) in halves[..T::TILE].iter_mut().enumerate() {
            *half = if x < columns {
                let top = self.dy.wrapping_add(x * self.strides[1] + channel);
                let mut column = [s.zero(); MOST_OUTPUTS];
                for (y, gradient) in column[..T::TILE].iter_mut().enumerate() {
                    if y < rows {
                        *gradient = vector(top.wrapping_add(y * self.strides[0]));
                    }
                }
                T::output_adjoint(s, column, rows)
            } else {
                [s.zero(); MOST_POINTS]
            };
        }
        // Opaque, so that the planes' addresses are stepped through, not computed ahead and spilled.
        let plane = black_box(self.panels.plane);
        let mut target = self.target::<S>(channel);
        let [row_points, column_points] = [rows, columns].map(T::points);
        for y in 0..T::POINTS {
            if y >= row_points {
                break;
            }
            let row = T::output_adjoint(s, transform::across(&halves, y), columns);
            for (x, &value) in row[..T::POINTS].iter().enumerate() {
                if x < column_points {
                    // SAFETY: the invariant: row `slot` of this panel is writable in each plane.
                    unsafe { s.store(target, value) };
                }
                target = target.wrapping_add(plane);
            }
        }
    }

    /// Where the vector at `channel` goes in the first plane.
    #[inline(always)]
    fn target<S: Simd>(&self, channel: usize) -> *mut f32 {
        let full = 2 * S::LANES;
        let (panel, lane) = (channel / full, channel % full);
        let width = if panel * full + S::LANES >= self.channels {
            S::LANES
        } else {
            full
        };
        self.panels
            .z
            .wrapping_add(panel * self.panels.stride + self.panels.slot * width + lane)
    }

    /// Asks for the gradients of the next tile, a cache line each.
    #[inline(always)]
    fn prefetch_next<S: Simd>(&self, s: S, channel: usize) {
        if channel.is_multiple_of(16) {
            for y in 0..T::TILE {
                let next = self.next.wrapping_add(y * self.strides[0] + channel);
                for x in 0..T::TILE {
                    s.prefetch(next.wrapping_add(x * self.strides[1]));
                }
            }
        }
    }
}
