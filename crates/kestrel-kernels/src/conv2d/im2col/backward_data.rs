//! Gradient of the input. Where windows lie side by side (stride 1) it is itself a convolution, of `dy` with the kernel
//! turned round; elsewhere `patches = weightᵀ · dy` are added back to the pixels that they came from.

use super::forward::{forward, group_weight};
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
    match transposed(g) {
        Some(transposed) => forward(&transposed, dy, &turn_round(g, weight), None),
        None => scatter(g, weight, dy),
    }
}

/// The convolution that takes `dy` to `dx`, if a convolution with one padding does.
fn transposed(g: &Geometry) -> Option<Geometry> {
    let padding = (g.dilation * (g.kernel_height - 1)).checked_sub(g.padding)?;
    (g.stride == 1 && g.kernel_height == g.kernel_width).then_some(Geometry {
        in_channels: g.out_channels,
        height: g.out_height,
        width: g.out_width,
        out_channels: g.in_channels,
        out_height: g.height,
        out_width: g.width,
        padding,
        ..*g
    })
}

/// The weight `[K, C/G, R, S]` as `[C, K/G, R, S]`, with the taps in reverse order.
fn turn_round<T: Element>(g: &Geometry, weight: &[T]) -> Vec<T> {
    let (rows, columns, taps) = (g.group_out(), g.group_in(), g.taps());
    let mut turned = vec![T::ZERO; weight.len()];
    for (turned, weight) in turned
        .chunks_exact_mut(rows * g.patch())
        .zip(weight.chunks_exact(rows * g.patch()))
    {
        for (i, kernel) in weight.chunks_exact(taps).enumerate() {
            let (k, c) = (i / columns, i % columns);
            let to = &mut turned[(c * rows + k) * taps..][..taps];
            for (to, from) in to.iter_mut().zip(kernel.iter().rev()) {
                *to = *from;
            }
        }
    }
    turned
}

/// Product and scatter, for any stride.
fn scatter<T: Element>(g: &Geometry, weight: &[T], dy: &[T]) -> Vec<T> {
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
            scatter_piece(
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
fn scatter_piece<T: Element>(
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
        patches.resize(rows * strip.len(), T::ZERO);
        let mut product = MatMut::row_major(patches, rows, strip.len(), strip.len());
        gemm(&mut product, false, weight, dy);
        col2im(g, patches, &strip, dx);
    }
}
