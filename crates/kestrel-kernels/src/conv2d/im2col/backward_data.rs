//! Gradient of the input: `patches = weightᵀ · dy`, added back to the pixels that they came from.

use super::forward::group_weight;
use super::patches::col2im;
use super::strip;
use crate::conv2d::geometry::Geometry;
use crate::element::Element;
use crate::gemm::{MatMut, MatRef, gemm};
use rayon::prelude::*;

/// Input channels of a piece of work; a piece owns its channels of one image.
const CHANNELS: usize = 32;

/// The gradient `[N, C, H, W]` of the input from `weight` `[K, C/G, R, S]` and `dy` `[N, K, P, Q]`.
pub(crate) fn backward_data<T: Element>(g: &Geometry, weight: &[T], dy: &[T]) -> Vec<T> {
    let mut dx = vec![T::ZERO; g.batch * g.in_channels * g.in_positions()];
    let mut pieces = Vec::new();
    for (image, dx) in dx.chunks_exact_mut(g.in_channels * g.in_positions()).enumerate() {
        for (group, dx) in dx.chunks_exact_mut(g.group_in() * g.in_positions()).enumerate() {
            for (block, dx) in dx.chunks_mut(CHANNELS * g.in_positions()).enumerate() {
                pieces.push((image, group, block * CHANNELS, dx));
            }
        }
    }
    pieces
        .into_par_iter()
        .for_each_init(Vec::new, |patches, (image, group, channel, dx)| {
            piece(
                g,
                weight,
                &dy[image * g.out_channels * g.out_positions()..],
                group,
                channel,
                patches,
                dx,
            );
        });
    dx
}

/// Some channels of one image, from `channel` of the group on; `dy` starts at the image.
fn piece<T: Element>(
    g: &Geometry,
    weight: &[T],
    dy: &[T],
    group: usize,
    channel: usize,
    patches: &mut Vec<T>,
    dx: &mut [T],
) {
    let positions = g.out_positions();
    let rows = dx.len() / g.in_positions() * g.taps();
    let weight = group_weight(g, weight, group)
        .columns(channel * g.taps()..channel * g.taps() + rows)
        .transpose();
    let dy = &dy[group * g.group_out() * positions..];
    let width = strip::positions_per_strip(g);
    for start in (0..positions).step_by(width) {
        let strip = start..(start + width).min(positions);
        let dy = MatRef::row_major(&dy[start..], g.group_out(), strip.len(), positions);
        if g.is_pointwise() {
            let mut dx = MatMut::row_major(&mut dx[start..], rows, strip.len(), positions);
            gemm(&mut dx, false, weight, dy);
        } else {
            patches.resize(rows * strip.len(), T::ZERO);
            let mut product = MatMut::row_major(patches, rows, strip.len(), strip.len());
            gemm(&mut product, false, weight, dy);
            col2im(g, patches, &strip, dx);
        }
    }
}
