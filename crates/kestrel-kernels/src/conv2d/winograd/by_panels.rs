//! The forward pass, panel of output channels by panel, for few tiles and many weights.
//!
//! All threads transform the patches of all tiles; then each takes panels of output channels, transforms a panel's
//! weights, a part of the depth at a time, multiplies all tiles with each part, and transforms the sums. So transformed
//! weights never leave a core's cache, and one image keeps all threads busy.

use rayon::prelude::*;

use super::convolve::{Operands, Sums};
use super::output::Products;
use super::panel::patch_row;
use super::points::Points;
use super::product::{Product, multiply};
use super::transform::Transform;
use super::weights::transform_weight_part;
use crate::conv2d::slices::Shared;
use crate::conv2d::workspace::{LINE, Workspace};
use crate::simd::Simd;

/// Tiles that one thread transforms in one go.
const TILES_AT_ONCE: usize = 8;
/// Tiles whose outputs are summed up in f32.
const BLOCK: usize = 32;

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
    let tiles = shape.tiles();
    let v_row = patch_row::<S>(panels.depth);
    let v_plane = (tiles * v_row).next_multiple_of(LINE) + LINE;
    let v = workspace.shared.floats(T::ALL_POINTS * v_plane);
    let v_at = Shared(v.as_mut_ptr());
    (0..tiles.div_ceil(TILES_AT_ONCE))
        .into_par_iter()
        .with_max_len(1)
        .for_each(|part| {
            let part = part * TILES_AT_ONCE..tiles.min((part + 1) * TILES_AT_ONCE);
            let v = v_at.get().wrapping_add(part.start * v_row);
            // SAFETY: the tiles are the shape's; `v` has planes of `v_plane` floats, holding all tiles with rows of the
            // channels rounded up to a vector, and no two parts have a row in common.
            unsafe { operands.input.transform_patches(part, v, [v_plane, v_row]) };
        });

    let blocks = tiles.div_ceil(BLOCK);
    let m_row = panels.full_width();
    let m_plane = tiles * m_row + LINE;
    let sums = Sums::by_range(&mut workspace.sums, operands.sums, panels.count(), blocks, m_row);
    let points = Points::<T>::new(shape, 0..tiles);
    let scratch_len = panels.part_len() + T::ALL_POINTS * m_plane;
    let len = sums.len;
    workspace.threads.for_each_unit(
        panels.count(),
        scratch_len,
        sums.values,
        blocks * len,
        |panel, scratch, sums| {
            let (u, m) = scratch.split_at_mut(panels.part_len());
            let m = m.as_mut_ptr();
            for part in panels.parts(panel) {
                transform_weight_part::<T, S>(s, w, direction, panels, part.clone(), u);
                let products =
                    (0..T::ALL_POINTS).flat_map(|point| points.runs(point).iter().map(move |rows| (point, rows)));
                for (point, rows) in products {
                    let product = Product {
                        rows: rows.len(),
                        depth: part.depth.len(),
                        a: v_at
                            .get()
                            .wrapping_add(point * v_plane + rows.start * v_row + part.depth.start),
                        a_stride: v_row,
                        b: u[points.plane(point) * part.plane..].as_ptr(),
                        c: m.wrapping_add(point * m_plane + rows.start * m_row),
                        c_stride: m_row,
                        next: u[points.plane((point + 1).min(T::ALL_POINTS - 1)) * part.plane..].as_ptr(),
                        // Patches of all tiles are more than a core's cache holds, and lie in rows too short to be foreseen.
                        ahead: if point + 1 < T::ALL_POINTS { v_plane } else { 0 },
                    };
                    let width = panels.width(panel);
                    if part.depth.start == 0 {
                        // SAFETY: A is columns of rows of a plane of `v`, all written and no longer written to; B a plane of
                        // `u`; C rows of a plane of `m`, as wide as a full panel; `u` and `m` are this thread's.
                        unsafe { multiply::<S, false, false>(s, product, width) };
                    } else {
                        // SAFETY: as above, and the first part has initialised C.
                        unsafe { multiply::<S, false, true>(s, product, width) };
                    }
                }
            }
            let first = panel * panels.full_width();
            let channels = first..first + panels.used(panel);
            for block in 0..blocks {
                let range = block * BLOCK..tiles.min((block + 1) * BLOCK);
                let sums = &mut sums[block * len..][..len];
                let products = Products {
                    m: m.wrapping_add(range.start * m_row),
                    plane: m_plane,
                    row: m_row,
                };
                // SAFETY: tiles and channels are the shape's, a panel starts at a multiple of a vector; `m` has just been
                // written for these tiles and channels; the outputs at these channels belong to this panel.
                unsafe {
                    operands
                        .output
                        .transform_products(products, range, channels.clone(), sums)
                };
            }
        },
    );
    sums
}
