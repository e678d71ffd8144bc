//! The input of a pass, and the transform of its patches: `V = Bᵀ d B` for each tile and channel.

use std::hint::black_box;
use std::marker::PhantomData;
use std::ops::Range;

use super::shape::Shape;
use super::tiles::Tile;
use super::transform::{self, MOST_POINTS, Transform};
use crate::conv2d::hooks::OnLoad;
use crate::conv2d::slices::check_len;
use crate::simd::{Kernel, Simd};

/// The input of a pass, cut into patches. The passes know it as this, so that they are compiled once for all functions on load.
pub(super) trait Input: Sync {
    /// Transforms the patches of `tiles` to `v[point * plane + (tile - tiles.start) * row + channel]`, with strides `[plane, row]`.
    ///
    /// The channels up to the next multiple of a vector get zeros' transforms, that is zeros.
    ///
    /// # Safety
    /// - `tiles` are tiles of the shape.
    /// - `row` is at least the input channels rounded up to a vector, and at `v + point * plane`, for each point,
    ///   `tiles.len() * row` floats are writable and used by nobody else during the call.
    unsafe fn transform_patches(&self, tiles: Range<usize>, v: *mut f32, strides: [usize; 2]);
}

/// `load(x)`, by the transforms `T`. Invariant: `x` has the length of the shape's input.
pub(super) struct Loaded<'a, T, S, L> {
    s: S,
    transform: PhantomData<T>,
    shape: &'a Shape,
    x: &'a [f32],
    load: &'a L,
}

impl<'a, T: Transform, S: Simd, L: OnLoad> Loaded<'a, T, S, L> {
    /// The input `load(x)` of `shape`.
    ///
    /// # Panics
    /// If `x` has another length than the shape's input, or `load` is for other channels.
    pub(super) fn new(s: S, shape: &'a Shape, x: &'a [f32], load: &'a L) -> Self {
        let [.., c] = shape.input();
        check_len("an input", x.len(), shape.input());
        load.check(c);
        Self {
            s,
            transform: PhantomData,
            shape,
            x,
            load,
        }
    }
}

impl<T: Transform, S: Simd, L: OnLoad> Input for Loaded<'_, T, S, L> {
    unsafe fn transform_patches(&self, tiles: Range<usize>, v: *mut f32, [plane, row]: [usize; 2]) {
        self.s.vectorize(Patches::<T, L> {
            transform: PhantomData,
            shape: self.shape,
            x: self.x.as_ptr(),
            load: self.load,
            tiles,
            v,
            plane,
            row,
        });
    }
}

/// A range of tiles. Invariant: `x` is readable for the shape's input, and [`Input::transform_patches`]'s conditions.
struct Patches<'a, T, L> {
    transform: PhantomData<T>,
    shape: &'a Shape,
    x: *const f32,
    load: &'a L,
    tiles: Range<usize>,
    v: *mut f32,
    plane: usize,
    row: usize,
}

impl<T: Transform, L: OnLoad> Kernel for Patches<'_, T, L> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let [_, h, w, c] = self.shape.input();
        let mut v = self.v;
        let corner = |tile: Tile| {
            let [top, left] = [tile.y, tile.x].map(|at| self.shape.patch_start(at));
            let corner = ((tile.image * h) as isize + top) * w as isize + left;
            // It may lie outside the image: the pointer wraps, and is not read there.
            self.x.wrapping_offset(corner * c as isize)
        };
        let mut tiles = self.shape.tiles_in(self.tiles.clone());
        while let Some(tile) = tiles.next() {
            let patch = Patch::<T, L> {
                transform: PhantomData,
                corner: corner(tile),
                next: corner(tiles.upcoming()),
                strides: [w * c, c],
                columns: self.shape.patch_columns(tile.x),
                channels: c,
                load: self.load,
                v,
                plane: self.plane,
            };
            // Known rows make straight code: of an inner tile, and of those at an edge with one row beyond it.
            let rows = self.shape.patch_rows(tile.y);
            let (most, whole) = (T::PATCH, [T::TILE; 2]);
            let extent = self.shape.tile_extent(tile);
            match (extent == whole, rows.start, most - rows.end) {
                (true, 0, 0) => patch.run(s, 0..most, whole),
                (true, 1, 0) => patch.run(s, 1..most, whole),
                (true, 0, 1) => patch.run(s, 0..most - 1, whole),
                _ => patch.run(s, rows.clone(), extent),
            }
            patch.rest(s, rows, extent);
            v = v.wrapping_add(self.row);
        }
    }
}

/// One tile's patch. Invariant, kept by [`Patches`]: the pixels in the image's rows and in `columns` are readable for
/// `channels` floats each, and every plane of `v` is writable for the channels rounded up to a vector.
struct Patch<'a, T, L> {
    transform: PhantomData<T>,
    corner: *const f32,
    /// The corner of the next tile's patch.
    next: *const f32,
    /// Floats from a row to the next, and from a column to the next.
    strides: [usize; 2],
    columns: Range<usize>,
    channels: usize,
    load: &'a L,
    v: *mut f32,
    plane: usize,
}

impl<T: Transform, L: OnLoad> Patch<'_, T, L> {
    /// Transforms the whole vectors of the patch, of which `rows` are inside the image, for a tile of `extent` rows and columns.
    #[inline(always)]
    fn run<S: Simd>(&self, s: S, rows: Range<usize>, extent: [usize; 2]) {
        let mut channel = 0;
        while channel + S::LANES <= self.channels {
            self.prefetch_next(s, channel);
            // SAFETY: a pixel has `channels` floats, of which a whole vector is left from `channel` on.
            self.transform(s, rows.clone(), extent, channel, S::LANES, |at| unsafe { s.load(at) });
            channel += S::LANES;
        }
    }

    /// Transforms the channels that are left of the last vector.
    #[inline(always)]
    fn rest<S: Simd>(&self, s: S, rows: Range<usize>, extent: [usize; 2]) {
        let lanes = self.channels % S::LANES;
        if lanes > 0 {
            let channel = self.channels - lanes;
            // SAFETY: a pixel has `channels` floats, of which `lanes`, less than a vector, are left.
            self.transform(s, rows, extent, channel, lanes, |at| unsafe { s.load_first(at, lanes) });
        }
    }

    /// Transforms one vector of channels; `vector` loads them from a pixel inside the image.
    #[inline(always)]
    fn transform<S: Simd>(
        &self,
        s: S,
        rows: Range<usize>,
        extent: [usize; 2],
        channel: usize,
        lanes: usize,
        vector: impl Fn(*const f32) -> S::V,
    ) {
        let constants = self.load.channels(s, channel, lanes);
        let [row_stride, column_stride] = black_box(self.strides);
        let mut top = self.corner.wrapping_add(channel);
        let mut columns = [[s.zero(); MOST_POINTS]; MOST_POINTS];
        for (x, column) in columns[..T::PATCH].iter_mut().enumerate() {
            *column = if self.columns.contains(&x) {
                let mut at = top;
                let mut pixels = [s.zero(); MOST_POINTS];
                for (y, pixel) in pixels[..T::PATCH].iter_mut().enumerate() {
                    if rows.contains(&y) {
                        *pixel = L::apply(s, constants, vector(at));
                    }
                    at = at.wrapping_add(row_stride);
                }
                T::input(s, pixels, extent[0])
            } else {
                [s.zero(); MOST_POINTS]
            };
            top = top.wrapping_add(column_stride);
        }
        // Opaque, so that the planes' addresses are stepped through, not computed ahead and spilled.
        let plane = black_box(self.plane);
        let mut target = self.v.wrapping_add(channel);
        let [row_points, column_points] = extent.map(T::points);
        for y in 0..T::POINTS {
            if y >= row_points {
                break;
            }
            let row = T::input(s, transform::across(&columns, y), extent[1]);
            for (x, &value) in row[..T::POINTS].iter().enumerate() {
                if x < column_points {
                    // SAFETY: the invariant: each plane is writable at this vector of channels.
                    unsafe { s.store(target, value) };
                }
                target = target.wrapping_add(plane);
            }
        }
    }

    /// Asks for the pixels that the next tile has and those above and to the left of it have not, a cache line each.
    #[inline(always)]
    fn prefetch_next<S: Simd>(&self, s: S, channel: usize) {
        if channel.is_multiple_of(16) {
            for y in T::OVERLAP..T::PATCH {
                let next = self.next.wrapping_add(y * self.strides[0] + channel);
                for x in T::OVERLAP..T::PATCH {
                    s.prefetch(next.wrapping_add(x * self.strides[1]));
                }
            }
        }
    }
}
