//! The forward pass, block of tiles by block of tiles.
//!
//! A block goes through all three stages on one thread: its patches are transformed, then for each range of output
//! channels come the products of all points and the transform of their results.

use std::marker::PhantomData;
use std::ops::Range;

use super::convolve::{Operands, Sums};
use super::output::Products;
use super::panel::{Panels, patch_row};
use super::points::Points;
use super::product::{BLOCK_TILES, Product, multiply};
use super::shape::Shape;
use super::transform::Transform;
use super::weights::transform_weights;
use crate::conv2d::workspace::{LINE, Workspace};
use crate::simd::Simd;

/// How the work is cut up; depends on the shape and the instruction set alone.
#[derive(Clone, Copy, Debug)]
struct Blocking {
    /// Tiles of a block.
    tiles: usize,
    /// Blocks.
    count: usize,
    /// Floats from a tile to the next, and from a plane to the next, of the transformed patches.
    v_row: usize,
    v_plane: usize,
    /// The same of the products.
    m_row: usize,
    m_plane: usize,
    /// Ranges of output channels that a block is multiplied with in turn.
    ranges: usize,
}

impl Blocking {
    fn new<S: Simd>(shape: &Shape, panels: &Panels) -> Self {
        let [.., c] = shape.input();
        let tiles = block_tiles::<S>(shape.tiles());
        let v_row = patch_row::<S>(c);
        let m_row = channels_at_once::<S>().min(panels.padded());
        Self {
            tiles,
            count: shape.tiles().div_ceil(tiles),
            v_row,
            v_plane: (tiles * v_row).next_multiple_of(LINE) + LINE,
            m_row,
            m_plane: (tiles * m_row).next_multiple_of(LINE) + LINE,
            ranges: panels.channels.div_ceil(channels_at_once::<S>()),
        }
    }

    fn tiles_of(&self, block: usize, shape: &Shape) -> Range<usize> {
        block * self.tiles..((block + 1) * self.tiles).min(shape.tiles())
    }
}

/// Tiles of a block: fewer if there would be less than eight blocks.
fn block_tiles<S: Simd>(tiles: usize) -> usize {
    tiles.div_ceil(8).next_multiple_of(S::ROWS).min(BLOCK_TILES)
}

/// Output channels whose products are held at a time: processors with wide vectors have larger caches.
const fn channels_at_once<S: Simd>() -> usize {
    if S::LANES > 8 { 128 } else { 64 }
}

/// Runs a pass; returns the sums.
pub(super) fn convolve<'w, T: Transform, S: Simd>(operands: Operands<'_, S>, workspace: &'w mut Workspace) -> Sums<'w> {
    let Operands {
        s,
        shape,
        panels,
        w,
        direction,
        ..
    } = operands;
    let blocking = Blocking::new::<S>(shape, &panels);
    let u = workspace.weights.floats(panels.len());
    transform_weights::<T, S>(s, w, direction, panels, u);
    let u = &*u;
    let sums = Sums::by_block(
        &mut workspace.sums,
        operands.sums,
        blocking.count,
        blocking.ranges,
        blocking.m_row,
    );

    let v_len = T::ALL_POINTS * blocking.v_plane;
    let scratch_len = v_len + T::ALL_POINTS * blocking.m_plane;
    let job = Job {
        transform: PhantomData::<T>,
        operands,
        blocking,
        u,
    };
    let sums_len = blocking.ranges * sums.len;
    workspace.threads.for_each_unit(
        blocking.count,
        scratch_len,
        sums.values,
        sums_len,
        |block, scratch, sums| {
            let (v, m) = scratch.split_at_mut(v_len);
            job.run(blocking.tiles_of(block, shape), v, m, sums);
        },
    );
    sums
}

/// What all blocks of a pass share.
struct Job<'a, T, S> {
    transform: PhantomData<T>,
    /// Each tile is in one block, and each block is run once.
    operands: Operands<'a, S>,
    blocking: Blocking,
    u: &'a [f32],
}

impl<T: Transform, S: Simd> Job<'_, T, S> {
    fn run(&self, tiles: Range<usize>, v: &mut [f32], m: &mut [f32], sums: &mut [f32]) {
        let Blocking {
            v_row,
            v_plane,
            m_row,
            m_plane,
            ranges,
            ..
        } = self.blocking;
        let (v, m) = (v.as_mut_ptr(), m.as_mut_ptr());
        // SAFETY: the tiles are the shape's, and `v` has planes of `v_plane` floats, each holding a block's tiles with
        // rows of the channels rounded up to a vector.
        unsafe {
            self.operands
                .input
                .transform_patches(tiles.clone(), v, [v_plane, v_row])
        };
        let sums_len = sums.len() / ranges;
        for range in 0..ranges {
            let first = range * channels_at_once::<S>();
            let channels = first..self.operands.panels.channels.min(first + channels_at_once::<S>());
            self.multiply(tiles.clone(), channels.clone(), v, m);
            let products = Products {
                m,
                plane: m_plane,
                row: m_row,
            };
            let sums = &mut sums[range * sums_len..][..sums_len];
            // SAFETY: tiles and channels are the shape's, `first` is a multiple of a vector; `m` has a plane for each point,
            // holding a block's tiles with rows of these channels rounded up to a vector, just written; the outputs in these
            // tiles belong to this block.
            unsafe {
                self.operands
                    .output
                    .transform_products(products, tiles.clone(), channels, sums);
            };
        }
    }

    /// The products of all points with output channels `channels`, to `m`.
    fn multiply(&self, tiles: Range<usize>, channels: Range<usize>, v: *const f32, m: *mut f32) {
        let Blocking {
            v_row,
            v_plane,
            m_row,
            m_plane,
            ..
        } = self.blocking;
        let panels = &self.operands.panels;
        let full = panels.full_width();
        let range = channels.start / full..channels.end.div_ceil(full);
        let points = Points::<T>::new(self.operands.shape, tiles);
        for point in 0..T::ALL_POINTS {
            let next_plane = points.plane((point + 1).min(T::ALL_POINTS - 1));
            for panel in range.clone() {
                let at =
                    |panel: usize, plane: usize| self.u[panel * panels.stride() + plane * panels.plane()..].as_ptr();
                let b = at(panel, points.plane(point));
                let next = if panel + 1 < range.end {
                    at(panel + 1, points.plane(point))
                } else {
                    at(range.start, next_plane)
                };
                for rows in points.runs(point) {
                    let product = Product {
                        rows: rows.len(),
                        depth: panels.depth,
                        a: v.wrapping_add(point * v_plane + rows.start * v_row),
                        a_stride: v_row,
                        b,
                        c: m.wrapping_add(point * m_plane + rows.start * m_row + panel * full - channels.start),
                        c_stride: m_row,
                        next,
                        ahead: 0,
                    };
                    // SAFETY: A is these rows of a plane of `v`; B a plane of `u`, which has the panels' length; C these rows
                    // of a plane of `m`, which hold these channels rounded up to a vector; this thread alone uses `m`.
                    unsafe { multiply::<S, false, false>(self.operands.s, product, panels.width(panel)) };
                }
            }
        }
    }
}
