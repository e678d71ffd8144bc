//! The backward pass to the weights, by the adjoint: `dU = Σ Vᵀ Z` over all tiles, then `dg = Gᵀ dU G`.
//!
//! Few channels: the tiles are cut into a fixed number of groups, each with its own accumulator, and a thread works on
//! a whole group. Many channels: all threads transform one block of tiles, then share out its products among them, with
//! one accumulator; if one block holds all tiles, a thread carries a panel of output channels through to `dg`. In each
//! case an accumulator sums its tiles in order, and accumulators are summed in order.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use super::WeightGradient;
use super::gradient::{GradientPanels, transform_gradients};
use super::input::{Input, Loaded};
use super::panel::{Panels, patch_row};
use super::points::Points;
use super::product::{Product, multiply};
use super::shape::{Form, Shape};
use super::transform::{Adjoint, Strided, Unit};
use super::weights::{transform_weight_gradient_part, transform_weight_gradients, weight_gradient_len};
use crate::conv2d::hooks::OnLoad;
use crate::conv2d::slices::{Shared, check_len};
use crate::conv2d::workspace::{LINE, Workspace};
use crate::simd::Simd;

/// Bytes that all accumulators together may take, if there are several.
const ACCUMULATOR_BYTES: usize = 8 << 20;
/// Accumulators, at most.
const MAX_GROUPS: usize = 8;
/// Tiles that are transformed at a time by a thread that works alone.
const TILES_ALONE: usize = 32;
/// Floats of transformed tiles up to which all may form one block: 24 MiB.
const ALL_TILES: usize = 6 << 20;
/// Floats of a block that threads share.
const SHARED_BLOCK_FLOATS: usize = 1_800_000;
/// Tiles that one thread transforms in one go, where threads share a block.
const TILES_AT_ONCE: usize = 8;

/// Runs `pass`.
pub(super) fn backward_weights<S: Simd, L: OnLoad>(s: S, pass: WeightGradient<'_, L>) {
    match pass.shape.form() {
        Form::Unit => backward_weights_by::<Unit, S, L>(s, pass),
        Form::Strided => backward_weights_by::<Strided, S, L>(s, pass),
        Form::StridedBack(_) => unreachable!("a Winograd is of a convolution, not of its gradient's way"),
    }
}

/// The same by the transforms of the shape's form.
fn backward_weights_by<T: Adjoint, S: Simd, L: OnLoad>(s: S, pass: WeightGradient<'_, L>) {
    let WeightGradient {
        shape,
        x,
        load,
        dy,
        dw,
        workspace,
    } = pass;
    let ([.., c], [.., k]) = (shape.input(), shape.output());
    check_len("an output's gradient", dy.len(), shape.output());
    check_len("a weight's gradient", dw.len(), shape.weight());
    let job = Job::<T, S> {
        s,
        transform: PhantomData,
        shape: &shape,
        panels: Panels::new(s, k, c, T::ALL_POINTS),
        input: &Loaded::<T, S, L>::new(s, &shape, x, load),
        dy,
    };
    job.run(dw, workspace);
}

/// Groups of tiles; 1 means that all threads share each block.
fn groups(shape: &Shape, panels: &Panels) -> usize {
    let accumulators = ACCUMULATOR_BYTES / (panels.len() * size_of::<f32>());
    let groups = MAX_GROUPS.min(accumulators).min(shape.tiles() / TILES_ALONE);
    // A power of two: it divides evenly among the usual numbers of threads.
    if groups < 4 { 1 } else { 1 << groups.ilog2() }
}

/// Tiles of a shared block: as many as keep it within 7 MB, in whole parts of [`TILES_AT_ONCE`].
fn shared_block_tiles<T: Adjoint>(panels: &Panels) -> usize {
    let tiles = SHARED_BLOCK_FLOATS / (T::ALL_POINTS * (panels.channels + panels.depth));
    tiles.clamp(16, 128) / TILES_AT_ONCE * TILES_AT_ONCE
}

/// A block of transformed tiles: patches as rows of channels, gradients as panels.
#[derive(Clone, Copy, Debug)]
struct Block {
    tiles: usize,
    points: usize,
    v_row: usize,
    v_plane: usize,
    z_stride: usize,
    z_plane: usize,
}

impl Block {
    fn new<T: Adjoint, S: Simd>(tiles: usize, panels: &Panels) -> Self {
        let v_row = patch_row::<S>(panels.depth);
        let z_stride = tiles * panels.full_width();
        Self {
            tiles,
            points: T::ALL_POINTS,
            v_row,
            v_plane: (tiles * v_row).next_multiple_of(LINE) + LINE,
            z_stride,
            z_plane: (z_stride * panels.count()).next_multiple_of(LINE) + LINE,
        }
    }

    fn len(&self) -> usize {
        self.points * (self.v_plane + self.z_plane)
    }
}

/// The operands.
struct Job<'a, T, S> {
    s: S,
    transform: PhantomData<T>,
    shape: &'a Shape,
    panels: Panels,
    input: &'a dyn Input,
    dy: &'a [f32],
}

impl<T: Adjoint, S: Simd> Job<'_, T, S> {
    /// Computes `dw`, cut up in the way that suits the sizes.
    fn run(&self, dw: &mut [f32], workspace: &mut Workspace) {
        if self.fits_one_block() {
            self.by_panels(dw, workspace);
            return;
        }
        let groups = groups(self.shape, &self.panels);
        let du = if groups > 1 {
            self.in_groups(groups, workspace)
        } else {
            self.in_shared_blocks(shared_block_tiles::<T>(&self.panels), workspace)
        };
        transform_weight_gradients::<T, S>(self.s, du, self.panels, dw);
    }

    /// Accumulates group by group; returns the groups' accumulators.
    fn in_groups<'w>(&self, groups: usize, workspace: &'w mut Workspace) -> &'w [f32] {
        let tiles = self.shape.tiles();
        let block = Block::new::<T, S>(TILES_ALONE, &self.panels);
        let du = workspace.weights.floats(groups * self.panels.len());
        let accumulator_len = self.panels.len();
        workspace.threads.for_each_unit(
            groups,
            block.len(),
            du,
            accumulator_len,
            |group, scratch, accumulator| {
                let tiles = tiles * group / groups..tiles * (group + 1) / groups;
                self.accumulate_group(tiles, block, scratch, accumulator);
            },
        );
        du
    }

    fn accumulate_group(&self, tiles: Range<usize>, block: Block, scratch: &mut [f32], du: &mut [f32]) {
        let start = tiles.start;
        let accumulator = Shared(du.as_mut_ptr());
        for first in tiles.clone().step_by(block.tiles) {
            let range = first..tiles.end.min(first + block.tiles);
            let at = Shared(scratch.as_mut_ptr());
            // SAFETY: the scratch has the block's length, the range is of at most the block's tiles, and this thread alone
            // uses the scratch.
            unsafe { self.transform(range.clone(), 0, block, at) };
            let points = Points::<T>::new(self.shape, range);
            for index in 0..self.products() {
                let target = self.target(accumulator, index);
                // SAFETY: the range's rows of the block have just been transformed, and nobody writes to them now; the
                // accumulator is this group's, and initialised by its first block.
                unsafe { self.multiply(target, &points, first == start, block, at) };
            }
        }
    }

    /// Accumulates block by block of `tiles` tiles, all threads sharing each; returns the one accumulator.
    fn in_shared_blocks<'w>(&self, tiles: usize, workspace: &'w mut Workspace) -> &'w [f32] {
        let all = self.shape.tiles();
        let block = Block::new::<T, S>(tiles.min(all), &self.panels);
        let du = workspace.weights.floats(self.panels.len());
        let accumulator = Shared(du.as_mut_ptr());
        let scratch = Shared(workspace.shared.floats(block.len()).as_mut_ptr());
        for first in (0..all).step_by(block.tiles) {
            let range = first..all.min(first + block.tiles);
            self.transform_shared(range.clone(), block, scratch);
            let points = Points::<T>::new(self.shape, range);
            let products = (0..self.products()).into_par_iter();
            products.with_max_len(self.panels.count()).for_each(|index| {
                let target = self.target(accumulator, index);
                // SAFETY: the range's rows of the block have just been transformed, and nobody writes to them now; each index
                // has its own plane of the accumulator, initialised by the first block.
                unsafe { self.multiply(target, &points, first == 0, block, scratch) };
            });
        }
        du
    }

    /// Whether the transformed tiles are fewer floats than the accumulator read and written, and few enough to be held at once.
    fn fits_one_block(&self) -> bool {
        let Panels { channels, depth, .. } = self.panels;
        let transformed = self.shape.tiles() * (channels + depth);
        transformed < 2 * channels * depth && T::ALL_POINTS * transformed <= ALL_TILES
    }

    /// Transforms all tiles at once, then computes `dw` panel by panel.
    fn by_panels(&self, dw: &mut [f32], workspace: &mut Workspace) {
        let (tiles, panels) = (self.shape.tiles(), &self.panels);
        let block = Block::new::<T, S>(tiles, panels);
        let scratch = Shared(workspace.shared.floats(block.len()).as_mut_ptr());
        self.transform_shared(0..tiles, block, scratch);
        let points = Points::<T>::new(self.shape, 0..tiles);
        let dw_len = weight_gradient_len(panels);
        workspace
            .threads
            .for_each_unit(panels.count(), panels.part_len(), dw, dw_len, |panel, du, dw| {
                for part in panels.parts(panel) {
                    for (point, plane) in du.chunks_exact_mut(part.plane).enumerate() {
                        let target = Target {
                            point,
                            panel,
                            channels: part.depth.clone(),
                            plane: plane.as_mut_ptr(),
                            next: plane.as_ptr(),
                            next_patches: point + 1 < T::ALL_POINTS,
                        };
                        // SAFETY: rows `0..tiles` of the block have been transformed, and nobody writes to them now; the plane
                        // is this thread's.
                        unsafe { self.multiply(target, &points, true, block, scratch) };
                    }
                    transform_weight_gradient_part::<T, S>(self.s, du, self.panels, part, dw);
                }
            });
    }

    /// Transforms `tiles` to the rows of a block that threads share, from 0 on.
    fn transform_shared(&self, tiles: Range<usize>, block: Block, scratch: Shared) {
        debug_assert!(tiles.len() <= block.tiles);
        (0..tiles.len().div_ceil(TILES_AT_ONCE))
            .into_par_iter()
            .with_max_len(1)
            .for_each(|part| {
                let slot = part * TILES_AT_ONCE;
                let part = tiles.start + slot..tiles.end.min(tiles.start + slot + TILES_AT_ONCE);
                // SAFETY: both callers' scratch has the block's length and holds `tiles`, and no two parts have a row in
                // common.
                unsafe { self.transform(part, slot, block, scratch) };
            });
    }

    /// Transforms patches and gradients of `tiles` to the rows of a block from `slot` on.
    ///
    /// # Safety
    /// `scratch` is writable for `block.len()` floats, `slot + tiles.len() <= block.tiles`, and nobody else uses these rows
    /// during the call.
    unsafe fn transform(&self, tiles: Range<usize>, slot: usize, block: Block, scratch: Shared) {
        let v = scratch.get().wrapping_add(slot * block.v_row);
        let strides = [block.v_plane, block.v_row];
        // SAFETY: rows from `slot` on of the planes of `v_plane` floats are this call's.
        unsafe { self.input.transform_patches(tiles.clone(), v, strides) };
        let z = scratch.get().wrapping_add(T::ALL_POINTS * block.v_plane);
        let panels = GradientPanels {
            z,
            plane: block.z_plane,
            stride: block.z_stride,
            slot,
        };
        // SAFETY: `dy` has the shape's length; a plane has `z_stride` floats for each panel, enough for the block's rows,
        // and those from `slot` on are this call's.
        unsafe { transform_gradients::<T, S>(self.s, self.shape, self.dy.as_ptr(), tiles, panels) };
    }

    /// Where the `index`th product goes in an accumulator. Products of the same point follow one another: they share its
    /// plane of patches.
    fn target(&self, accumulator: Shared, index: usize) -> Target {
        let (point, panel) = (index / self.panels.count(), index % self.panels.count());
        let plane = accumulator
            .get()
            .wrapping_add(panel * self.panels.stride() + point * self.panels.plane());
        Target {
            point,
            panel,
            channels: 0..self.panels.depth,
            plane,
            // What the next product adds to, if it is the same accumulator's next panel.
            next: plane.wrapping_add(self.panels.stride()),
            next_patches: panel + 1 == self.panels.count() && point + 1 < T::ALL_POINTS,
        }
    }

    /// Products that a block takes.
    fn products(&self) -> usize {
        T::ALL_POINTS * self.panels.count()
    }

    /// Adds the product of the block's tiles to `target`, or stores it there if it is the `first` one. Tiles whose gradients
    /// are zero at the target's point are left out.
    ///
    /// # Safety
    /// - Point, panel and channels are the shape's; `points` are of the tiles in the block's rows from 0 on, initialised in
    ///   `scratch`, and nobody writes to them during the call.
    /// - The plane is writable for the target's channels, initialised unless `first`, and nobody else uses it during the
    ///   call.
    unsafe fn multiply(&self, target: Target, points: &Points<T>, first: bool, block: Block, scratch: Shared) {
        let width = self.panels.width(target.panel);
        let v = scratch.get().wrapping_add(target.point * block.v_plane);
        let z = scratch
            .get()
            .wrapping_add(T::ALL_POINTS * block.v_plane + target.point * block.z_plane);
        let product = |tiles: Range<usize>| Product {
            rows: target.channels.len(),
            depth: tiles.len(),
            a: v.wrapping_add(tiles.start * block.v_row + target.channels.start),
            a_stride: block.v_row,
            b: z.wrapping_add(target.panel * block.z_stride + tiles.start * width),
            c: target.plane,
            c_stride: width,
            next: target.next,
            ahead: if target.next_patches { block.v_plane } else { 0 },
        };
        let (head, tail) = match points.runs(target.point) {
            [] => (0..0, &[][..]),
            [head, tail @ ..] => (head.clone(), tail),
        };
        if first {
            // SAFETY: A is these tiles' rows of a plane of patches, at these channels, B as many of a panel of gradients,
            // `width` lanes wide; C is a plane of an accumulator, a row of `width` lanes for each channel.
            unsafe { multiply::<S, true, false>(self.s, product(head), width) };
        } else {
            // SAFETY: as above, and the first block has initialised C.
            unsafe { multiply::<S, true, true>(self.s, product(head), width) };
        }
        for tiles in tail {
            // SAFETY: as above, and C has just been initialised or added to.
            unsafe { multiply::<S, true, true>(self.s, product(tiles.clone()), width) };
        }
    }
}

/// Where a product goes.
struct Target {
    point: usize,
    /// Of output channels.
    panel: usize,
    /// Input channels, the plane's rows.
    channels: Range<usize>,
    plane: *mut f32,
    /// Memory to ask for meanwhile.
    next: *const f32,
    /// Whether to ask for the next point's patches, too.
    next_patches: bool,
}
