//! The output of a pass, and the transform of products to it: `Y = Aᵀ M A` for each tile and channel, through an epilogue.

use std::hint::black_box;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::shape::Shape;
use super::transform::{self, MOST_OUTPUTS, MOST_POINTS, Transform};
use crate::conv2d::hooks::{Epilogue, Stores, Sums};
use crate::conv2d::slices::{Shared, check_len};
use crate::simd::{self, Kernel, Simd};

/// Products of a block of tiles and a range of output channels: `m[point * plane + tile * row + channel]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Products {
    pub(super) m: *const f32,
    pub(super) plane: usize,
    pub(super) row: usize,
}

/// The output of a pass. The passes know it as this, so that they are compiled once for all epilogues.
pub(super) trait Output: Sync {
    /// Writes output channels `channels` of `tiles`; adds to the block's `sums` at these channels, `[SUMS, products.row]`.
    ///
    /// # Safety
    /// - `tiles` are tiles of the shape, `channels` output channels of it, starting at a multiple of a vector.
    /// - The products are readable: for each point, `tiles.len() * row` floats, `row` being at least the number of channels
    ///   rounded up to a vector. Those that [`Shape::runs`] leaves out may hold anything.
    /// - Nobody else uses the tiles' outputs at these channels during the call.
    unsafe fn transform_products(
        &self,
        products: Products,
        tiles: Range<usize>,
        channels: Range<usize>,
        sums: &mut [f32],
    );
}

/// `y = epilogue(...)`, by the transforms `T`. Invariant: while it lives, `y` is writable for the length of the shape's output and `pooled`
/// for a fourth of it, as far as the epilogue stores them, and both are used by nobody else. Where it pools, the output's sides are even.
pub(super) struct Stored<'a, T, S, E> {
    s: S,
    transform: PhantomData<T>,
    shape: &'a Shape,
    epilogue: &'a E,
    y: Shared,
    pooled: Shared,
    borrow: PhantomData<&'a mut [MaybeUninit<f32>]>,
}

impl<'a, T: Transform, S: Simd, E: Epilogue> Stored<'a, T, S, E> {
    /// The outputs of `shape` that `epilogue` stores: all in `y`, pooled ones in `pooled`; what it does not store is empty.
    ///
    /// # Panics
    /// If one has another length, or `epilogue` is for other sizes.
    pub(super) fn new(
        s: S,
        shape: &'a Shape,
        epilogue: &'a E,
        y: &'a mut [MaybeUninit<f32>],
        pooled: &'a mut [MaybeUninit<f32>],
    ) -> Self {
        let [n, p, q, k] = shape.output();
        let images = |stored: bool| if stored { n } else { 0 };
        let pools = E::STORES != Stores::All;
        assert!(
            !pools || p % 2 == 0 && q % 2 == 0,
            "expected outputs of even sides to pool, got {p}x{q}"
        );
        check_len("an output", y.len(), [images(E::STORES != Stores::Pooled), p, q, k]);
        check_len("a pooled output", pooled.len(), [images(pools), p / 2, q / 2, k]);
        epilogue.check(k, n * p * q * k);
        Self {
            s,
            transform: PhantomData,
            shape,
            epilogue,
            y: Shared(y.as_mut_ptr().cast()),
            pooled: Shared(pooled.as_mut_ptr().cast()),
            borrow: PhantomData,
        }
    }
}

impl<T: Transform, S: Simd, E: Epilogue> Output for Stored<'_, T, S, E> {
    unsafe fn transform_products(
        &self,
        products: Products,
        tiles: Range<usize>,
        channels: Range<usize>,
        sums: &mut [f32],
    ) {
        self.s.vectorize(OutputTiles::<T, E> {
            transform: PhantomData,
            shape: self.shape,
            products,
            epilogue: self.epilogue,
            tiles,
            channels,
            y: self.y.get(),
            pooled: self.pooled.get(),
            sums,
        });
    }
}

/// A range of tiles and channels. Invariant: [`Stored`]'s, and [`Output::transform_products`]'s conditions.
struct OutputTiles<'a, T, E> {
    transform: PhantomData<T>,
    shape: &'a Shape,
    products: Products,
    epilogue: &'a E,
    tiles: Range<usize>,
    channels: Range<usize>,
    y: *mut f32,
    pooled: *mut f32,
    sums: &'a mut [f32],
}

impl<T: Transform, E: Epilogue> Kernel for OutputTiles<'_, T, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let [_, p, q, k] = self.shape.output();
        let len: usize = self.shape.output().iter().product();
        let streams = E::STORES != Stores::Pooled && simd::streams::<S>(self.y, len, k);
        let streams_pooled = E::STORES != Stores::All && simd::streams::<S>(self.pooled, len / 4, k);
        let mut m = self.products.m;
        let mut tiles = self.shape.tiles_in(self.tiles.clone());
        while let Some(tile) = tiles.next() {
            let next = tiles.upcoming();
            let extent = self.shape.tile_extent(tile);
            let mut tile = OutputTile::<T, E> {
                transform: PhantomData,
                m,
                plane: self.products.plane,
                y: self.y,
                pooled: self.pooled,
                index: ((tile.image * p + tile.y) * q + tile.x) * k,
                next: ((next.image * p + next.y) * q + next.x) * k,
                strides: [q * k, k],
                pooled_index: ((tile.image * p + tile.y) / 2 * (q / 2) + tile.x / 2) * k,
                pooled_row: q / 2 * k,
                channels: self.channels.clone(),
                epilogue: self.epilogue,
                sums: &mut *self.sums,
                sums_row: self.products.row,
                streams,
                streams_pooled,
            };
            if extent == [T::TILE; 2] {
                tile.run(s, [T::TILE; 2]);
            } else {
                tile.run(s, extent);
            }
            tile.rest(s, extent);
            m = m.wrapping_add(self.products.row);
        }
        if streams || streams_pooled {
            s.fence();
        }
    }
}

/// One tile. Invariant, kept by [`OutputTiles`]: every plane of `m` is readable for the channels rounded up to a vector,
/// and the tile's outputs at `index` that lie inside the image are writable at `channels`, by this kernel alone; so are its pooled
/// outputs at `pooled_index`. Both are as far as the epilogue stores them.
struct OutputTile<'a, T, E> {
    transform: PhantomData<T>,
    m: *const f32,
    plane: usize,
    y: *mut f32,
    pooled: *mut f32,
    /// Of the tile's first output, channel 0.
    index: usize,
    /// Of the next tile's first output.
    next: usize,
    /// Floats from a row to the next, and from a column to the next.
    strides: [usize; 2],
    /// Of the tile's first pooled output, and floats from a row of them to the next.
    pooled_index: usize,
    pooled_row: usize,
    channels: Range<usize>,
    epilogue: &'a E,
    sums: &'a mut [f32],
    sums_row: usize,
    /// Whether outputs are stored past the caches; then `y` and its rows are aligned to vectors.
    streams: bool,
    /// The same of pooled outputs.
    streams_pooled: bool,
}

impl<T: Transform, E: Epilogue> OutputTile<'_, T, E> {
    /// Transforms the whole vectors of the tile, of which `extent` rows and columns are inside the output.
    #[inline(always)]
    fn run<S: Simd>(&mut self, s: S, extent: [usize; 2]) {
        let mut channel = self.channels.start;
        while channel + S::LANES <= self.channels.end {
            if self.streams {
                // SAFETY: the outputs of the tile are writable at this whole vector of channels. It is aligned: `channel` is a
                // multiple of a vector, as are the first of the range and the rows of a `y` that streams.
                self.transform(s, extent, channel, S::LANES, |at, y| unsafe { s.stream(at, y) });
            } else {
                self.prefetch_next(s, channel);
                // SAFETY: the outputs of the tile are writable at this whole vector of channels.
                self.transform(s, extent, channel, S::LANES, |at, y| unsafe { s.store(at, y) });
            }
            channel += S::LANES;
        }
    }

    /// Transforms the channels that are left of the last vector.
    #[inline(always)]
    fn rest<S: Simd>(&mut self, s: S, extent: [usize; 2]) {
        let lanes = self.channels.len() % S::LANES;
        if lanes > 0 {
            let channel = self.channels.end - lanes;
            // SAFETY: the outputs of the tile are writable at these `lanes` channels, less than a vector.
            self.transform(s, extent, channel, lanes, |at, y| unsafe {
                s.store_first(at, y, lanes);
            });
        }
    }

    /// Transforms one vector of channels; `store` writes them to an output of the tile.
    #[inline(always)]
    fn transform<S: Simd>(
        &mut self,
        s: S,
        [rows, columns]: [usize; 2],
        channel: usize,
        lanes: usize,
        store: impl Fn(*mut f32, S::V),
    ) {
        // Opaque, so that addresses are stepped through, not computed ahead and spilled.
        let (plane, [row_stride, column_stride], pooled_row) = black_box((self.plane, self.strides, self.pooled_row));
        let mut top = self.m.wrapping_add(channel - self.channels.start);
        let mut halves = [[s.zero(); MOST_OUTPUTS]; MOST_POINTS];
        let [row_points, column_points] = [rows, columns].map(T::points);
        for (x, half) in halves[..T::POINTS].iter_mut().enumerate() {
            if x >= column_points {
                break;
            }
            let mut at = top;
            let mut column = [s.zero(); MOST_POINTS];
            for (y, product) in column[..T::POINTS].iter_mut().enumerate() {
                if y >= row_points {
                    break;
                }
                // SAFETY: the invariant: each plane that the tile needs is readable at this vector of channels.
                *product = unsafe { s.load(at) };
                at = at.wrapping_add(T::POINTS * plane);
            }
            top = top.wrapping_add(plane);
            *half = T::output(s, column, rows);
        }
        let mut constants = self.epilogue.channels(s, channel, lanes);
        let stored = self.y.wrapping_add(self.index + channel);
        let pooled = self.pooled.wrapping_add(self.pooled_index + channel);
        // Of pooled outputs, the last by order so far of each pair of columns.
        let mut last = [s.zero(); MOST_OUTPUTS / 2];
        for y in 0..T::TILE {
            if y >= rows {
                break;
            }
            let row = T::output(s, transform::across(&halves, y), columns);
            for (x, &value) in row[..T::TILE].iter().enumerate() {
                if x >= columns {
                    break;
                }
                let offset = y * row_stride + x * column_stride;
                let value = self
                    .epilogue
                    .apply(s, &mut constants, value, self.index + offset + channel, lanes);
                if E::STORES != Stores::Pooled {
                    store(stored.wrapping_add(offset), value);
                }
                if E::STORES == Stores::All {
                    continue;
                }
                let ordered = E::order(s, &constants, value);
                if y % 2 == 0 && x % 2 == 0 {
                    last[x / 2] = ordered;
                    continue;
                }
                last[x / 2] = s.maximum(last[x / 2], ordered);
                if y % 2 == 1 && x % 2 == 1 {
                    let at = pooled.wrapping_add(y / 2 * pooled_row + x / 2 * column_stride);
                    // Turned round twice it is the output again.
                    let value = E::order(s, &constants, last[x / 2]);
                    if lanes < S::LANES {
                        // SAFETY: the pooled outputs of the tile are writable at these `lanes` channels, less than a vector.
                        unsafe { s.store_first(at, value, lanes) };
                    } else if self.streams_pooled {
                        // SAFETY: they are writable at this whole vector of channels. It is aligned: `channel` is a multiple of a
                        // vector, as are the first of the range and the rows of a `pooled` that streams.
                        unsafe { s.stream(at, value) };
                    } else {
                        // SAFETY: they are writable at this whole vector of channels.
                        unsafe { s.store(at, value) };
                    }
                }
            }
        }
        E::finish(
            s,
            constants,
            Sums::new(&mut *self.sums, self.sums_row, channel - self.channels.start),
        );
    }

    /// Asks for the outputs of the next tile, a cache line each.
    #[inline(always)]
    fn prefetch_next<S: Simd>(&self, s: S, channel: usize) {
        if E::STORES != Stores::Pooled && channel.is_multiple_of(16) {
            for y in 0..T::TILE {
                let next = self.next + y * self.strides[0] + channel;
                for x in 0..T::TILE {
                    s.prefetch(self.y.wrapping_add(next + x * self.strides[1]));
                }
            }
        }
    }
}
