//! The forward pass, which with turned and transposed weights is the backward pass to the data.
//!
//! A block of tiles goes through all three stages on one thread: its patches are transformed, then for each range of
//! output channels come 36 products and the transform of their results.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::hooks::{Epilogue, OnLoad};
use super::input::transform_patches;
use super::output::{Products, transform_products};
use super::panel::Panels;
use super::product::{Product, multiply};
use super::shape::{POINTS, Shape};
use super::weights::{Direction, transform_weights};
use super::workspace::LINE;
use super::{Convolution, Shared, check_len};
use crate::simd::Simd;

/// Transformed weights of one point from which on the next panel is asked for ahead, in floats.
const PREFETCH_FROM: usize = 20_000;

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
    /// Floats of a row of sums.
    sums_row: usize,
}

impl Blocking {
    fn new<S: Simd>(shape: &Shape, panels: &Panels) -> Self {
        let [.., c] = shape.input();
        let tiles = block_tiles::<S>(shape.tiles(), c);
        let v_row = c.next_multiple_of(S::LANES);
        let m_row = channels_at_once::<S>().min(panels.padded());
        Self {
            tiles,
            count: shape.tiles().div_ceil(tiles),
            v_row,
            v_plane: (tiles * v_row).next_multiple_of(LINE) + LINE,
            m_row,
            m_plane: (tiles * m_row).next_multiple_of(LINE) + LINE,
            sums_row: panels.padded(),
        }
    }

    fn range(&self, block: usize, shape: &Shape) -> Range<usize> {
        block * self.tiles..((block + 1) * self.tiles).min(shape.tiles())
    }
}

/// Tiles of a block: 24, or 32 of many channels, but fewer if there would be less than eight blocks.
fn block_tiles<S: Simd>(tiles: usize, c: usize) -> usize {
    let most = if c > 128 { 32 } else { 24 };
    tiles.div_ceil(8).next_multiple_of(S::ROWS).min(most)
}

/// Output channels whose products are held at a time: processors with wide vectors have larger caches.
const fn channels_at_once<S: Simd>() -> usize {
    if S::LANES > 8 { 128 } else { 64 }
}

/// Runs `pass`; returns the epilogue's sums, `[SUMS, K]`.
pub(super) fn convolve<S: Simd, L: OnLoad, E: Epilogue>(s: S, pass: Convolution<'_, L, E>) -> Vec<f64> {
    let Convolution {
        shape,
        direction,
        x,
        load,
        w,
        epilogue,
        y,
        workspace,
    } = pass;
    let [.., c] = shape.input();
    let [.., k] = shape.output();
    check_len("an input", x.len(), shape.input());
    check_len(
        "a weight",
        w.len(),
        if direction == Direction::Forward {
            [k, c, 3, 3]
        } else {
            [c, k, 3, 3]
        },
    );
    check_len("an output", y.len(), shape.output());
    load.check(c);
    epilogue.check(k, y.len());

    let panels = Panels::new(s, k, c);
    let blocking = Blocking::new::<S>(&shape, &panels);
    let u = workspace.weights.floats(panels.len());
    transform_weights(s, w, direction, panels, u);
    let block_sums = E::SUMS * blocking.sums_row;
    let sums = workspace.sums.floats(blocking.count * block_sums);
    sums.fill(0.0);

    let threads = rayon::current_num_threads().min(blocking.count);
    if workspace.threads.len() < threads {
        workspace.threads.resize_with(threads, Default::default);
    }
    let next = AtomicUsize::new(0);
    let (y, sums_at) = (Shared(y.as_mut_ptr()), Shared(sums.as_mut_ptr()));
    let u = &*u;
    workspace.threads[..threads]
        .par_iter_mut()
        .with_max_len(1)
        .for_each(|scratch| {
            let scratch = scratch.floats(POINTS * (blocking.v_plane + blocking.m_plane));
            let (v, m) = scratch.split_at_mut(POINTS * blocking.v_plane);
            let job = Job {
                s,
                shape: &shape,
                panels,
                blocking,
                x,
                load,
                u,
                epilogue,
                y,
            };
            loop {
                let block = next.fetch_add(1, Ordering::Relaxed);
                if block >= blocking.count {
                    break;
                }
                let sums = sums_at.get().wrapping_add(block * block_sums);
                // SAFETY: `sums` has `block_sums` floats for each block, and this thread alone has taken this block.
                let sums = unsafe { std::slice::from_raw_parts_mut(sums, block_sums) };
                job.run(blocking.range(block, &shape), v, m, sums);
            }
        });

    let mut totals = vec![0.0; E::SUMS * k];
    for block in sums.chunks_exact(block_sums.max(1)) {
        for (totals, sums) in totals.chunks_exact_mut(k).zip(block.chunks_exact(blocking.sums_row)) {
            for (total, &sum) in totals.iter_mut().zip(sums) {
                *total += f64::from(sum);
            }
        }
    }
    totals
}

/// What all blocks of a pass share.
struct Job<'a, S, L, E> {
    s: S,
    shape: &'a Shape,
    panels: Panels,
    blocking: Blocking,
    x: &'a [f32],
    load: &'a L,
    u: &'a [f32],
    epilogue: &'a E,
    /// Writable for the shape's output; each block of tiles is run once.
    y: Shared,
}

impl<S: Simd, L: OnLoad, E: Epilogue> Job<'_, S, L, E> {
    fn run(&self, tiles: Range<usize>, v: &mut [f32], m: &mut [f32], sums: &mut [f32]) {
        let Blocking {
            v_row,
            v_plane,
            m_row,
            m_plane,
            sums_row,
            ..
        } = self.blocking;
        let (v, m) = (v.as_mut_ptr(), m.as_mut_ptr());
        // SAFETY: `x` has the shape's length (checked by `convolve`), the tiles are the shape's, and `v` has 36 planes of
        // `v_plane` floats, each holding a block's tiles with rows of the channels rounded up to a vector.
        unsafe {
            transform_patches(
                self.s,
                self.shape,
                self.x.as_ptr(),
                self.load,
                tiles.clone(),
                v,
                [v_plane, v_row],
            );
        };
        for first in (0..self.panels.channels).step_by(channels_at_once::<S>()) {
            let channels = first..self.panels.channels.min(first + channels_at_once::<S>());
            self.multiply(tiles.len(), channels.clone(), v, m);
            let products = Products {
                m,
                plane: m_plane,
                row: m_row,
            };
            // SAFETY: tiles and channels are the shape's, `first` is a multiple of a vector; `m` has 36 planes holding a
            // block's tiles with rows of these channels rounded up to a vector, just written; `y` has the shape's length,
            // and its outputs in these tiles belong to this block.
            unsafe {
                transform_products(
                    self.s,
                    self.shape,
                    products,
                    self.epilogue,
                    tiles.clone(),
                    channels,
                    self.y.get(),
                    sums,
                    sums_row,
                );
            }
        }
    }

    /// The products of all points with output channels `channels`, to `m`.
    fn multiply(&self, tiles: usize, channels: Range<usize>, v: *const f32, m: *mut f32) {
        let Blocking {
            v_row,
            v_plane,
            m_row,
            m_plane,
            ..
        } = self.blocking;
        let panels = &self.panels;
        let full = panels.full_width();
        let range = channels.start / full..channels.end.div_ceil(full);
        let prefetch = panels.channels * panels.depth > PREFETCH_FROM;
        for point in 0..POINTS {
            for panel in range.clone() {
                let b = self.u[panel * panels.stride() + point * panels.plane()..].as_ptr();
                let ahead = if panel + 1 < range.end {
                    panels.stride()
                } else {
                    panels.plane().wrapping_sub((range.len() - 1) * panels.stride())
                };
                let product = Product {
                    rows: tiles,
                    depth: panels.depth,
                    a: v.wrapping_add(point * v_plane),
                    a_stride: v_row,
                    b,
                    c: m.wrapping_add(point * m_plane + panel * full - channels.start),
                    c_stride: m_row,
                    next: prefetch.then_some(b.wrapping_add(ahead)),
                };
                // SAFETY: A is a plane of `v` with the tiles' rows; B a plane of `u`, which has the panels' length; C a
                // plane of `m`, whose rows hold these channels rounded up to a vector; this thread alone uses `m`.
                unsafe { multiply::<S, false, false>(self.s, product, panels.width(panel)) };
            }
        }
    }
}
