//! Forward: `y[K, positions] = weight[K, C·R·S] · patches[C·R·S, positions]`.

use super::patches::im2col;
use super::strip;
use crate::conv2d::geometry::Geometry;
use crate::element::Element;
use crate::gemm::{MatMut, MatRef, gemm};
use rayon::prelude::*;
use std::ops::Range;

/// The output `[N, K, P, Q]` of `x` `[N, C, H, W]`, `weight` `[K, C/G, R, S]` and `bias` `[K]`.
pub(crate) fn forward<T: Element>(g: &Geometry, x: &[T], weight: &[T], bias: Option<&[T]>) -> Vec<T> {
    let mut y = vec![T::ZERO; g.batch * g.out_channels * g.out_positions()];
    let images = strip::images_per_strip(g);
    let (in_image, out_image) = (g.in_channels * g.in_positions(), g.out_channels * g.out_positions());
    y.par_chunks_mut(images * out_image)
        .zip(x.par_chunks(images * in_image))
        .for_each(|(y, x)| {
            if images == 1 {
                one_image(g, x, weight, bias, y);
            } else {
                small_images(g, x, weight, bias, y);
            }
        });
    y
}

/// One image; its strips are written where they belong.
fn one_image<T: Element>(g: &Geometry, x: &[T], weight: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let positions = g.out_positions();
    for (group, (x, y)) in groups(g, x, y).enumerate() {
        let weight = group_weight(g, weight, group);
        let y = MatMut::row_major(y, g.group_out(), positions, positions);
        let blocks: Vec<_> = y.column_blocks(strip::positions_per_strip(g)).collect();
        blocks
            .into_par_iter()
            .for_each_init(Vec::new, |patches, (start, mut y)| {
                let strip = start..(start + strip::positions_per_strip(g)).min(positions);
                start_from_bias(g, bias, group, &mut y);
                if g.is_pointwise() {
                    let x = MatRef::row_major(&x[start..], g.group_in(), strip.len(), positions);
                    gemm(&mut y, bias.is_some(), weight, x);
                } else {
                    let patches = image_patches(g, x, &strip, patches);
                    gemm(&mut y, bias.is_some(), weight, patches);
                }
            });
    }
}

/// Several small images at once: one product, then each image takes its columns.
fn small_images<T: Element>(g: &Geometry, x: &[T], weight: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let positions = g.out_positions();
    let (in_image, out_image) = (g.in_channels * g.in_positions(), g.out_channels * positions);
    let columns = x.len() / in_image * positions;
    let mut patches = vec![T::ZERO; g.patch() * columns];
    let mut tile = vec![T::ZERO; g.group_out() * columns];
    for group in 0..g.groups {
        for (i, x) in x.chunks_exact(in_image).enumerate() {
            im2col(
                g,
                group_input(g, x, group),
                &(0..positions),
                &mut patches,
                columns,
                i * positions,
            );
        }
        let mut product = MatMut::row_major(&mut tile, g.group_out(), columns, columns);
        start_from_bias(g, bias, group, &mut product);
        let patches = MatRef::row_major(&patches, g.patch(), columns, columns);
        gemm(&mut product, bias.is_some(), group_weight(g, weight, group), patches);
        for (i, y) in y.chunks_exact_mut(out_image).enumerate() {
            let y = &mut y[group * g.group_out() * positions..][..g.group_out() * positions];
            for (y, tile) in y.chunks_exact_mut(positions).zip(tile.chunks_exact(columns)) {
                y.copy_from_slice(&tile[i * positions..(i + 1) * positions]);
            }
        }
    }
}

/// A group's channels of an image, and of its output.
fn groups<'a, T>(g: &Geometry, x: &'a [T], y: &'a mut [T]) -> impl Iterator<Item = (&'a [T], &'a mut [T])> {
    x.chunks_exact(g.group_in() * g.in_positions())
        .zip(y.chunks_exact_mut(g.group_out() * g.out_positions()))
}

/// A group's channels `[C/G, H, W]` of an image.
pub(super) fn group_input<'a, T>(g: &Geometry, image: &'a [T], group: usize) -> &'a [T] {
    let size = g.group_in() * g.in_positions();
    &image[group * size..(group + 1) * size]
}

/// A group's weight as a matrix `[K/G, C/G·R·S]`.
pub(super) fn group_weight<'a, T>(g: &Geometry, weight: &'a [T], group: usize) -> MatRef<'a, T> {
    let rows = g.group_out();
    MatRef::row_major(&weight[group * rows * g.patch()..], rows, g.patch(), g.patch())
}

/// The patches of one image, in `buffer`.
fn image_patches<'a, T: Element>(g: &Geometry, x: &[T], strip: &Range<usize>, buffer: &'a mut Vec<T>) -> MatRef<'a, T> {
    buffer.resize(g.patch() * strip::max_columns(g), T::ZERO);
    im2col(g, x, strip, buffer, strip.len(), 0);
    MatRef::row_major(buffer, g.patch(), strip.len(), strip.len())
}

fn start_from_bias<T: Element>(g: &Geometry, bias: Option<&[T]>, group: usize, y: &mut MatMut<'_, T>) {
    if let Some(bias) = bias {
        for k in 0..g.group_out() {
            y.fill_row(k, bias[group * g.group_out() + k]);
        }
    }
}
