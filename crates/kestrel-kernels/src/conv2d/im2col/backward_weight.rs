//! Gradients of weight and bias: `dweight = Σ dy · patchesᵀ`, `dbias = Σ dy`.

use super::forward::group_input;
use super::patches::im2col;
use super::strip::{self, Strip};
use crate::conv2d::geometry::Geometry;
use crate::element::Element;
use crate::gemm::{MatMut, MatRef, gemm};
use rayon::prelude::*;

/// Partial sums: their number depends on the weight's size alone, so that the order of addition never changes.
fn partial_sums(weight_elements: usize) -> usize {
    match weight_elements {
        0..=0x4_0000 => 16,
        0x4_0001..=0x10_0000 => 8,
        _ => 4,
    }
}

/// The gradient `[K, C/G, R, S]` of the weight from `x` `[N, C, H, W]` and `dy` `[N, K, P, Q]`.
pub(crate) fn backward_weight<T: Element>(g: &Geometry, x: &[T], dy: &[T]) -> Vec<T> {
    let size = g.out_channels * g.patch();
    let strips = strip::strips(g);
    let per_sum = strips.len().div_ceil(partial_sums(size)).max(1);
    let mut sums: Vec<Vec<T>> = strips
        .par_chunks(per_sum)
        .map_init(Vec::new, |buffer, strips| {
            let mut sum = vec![T::ZERO; size];
            for (i, strip) in strips.iter().enumerate() {
                add_strip(g, x, dy, strip, i > 0, buffer, &mut sum);
            }
            sum
        })
        .collect();
    if sums.is_empty() {
        return vec![T::ZERO; size];
    }
    let mut total = sums.remove(0);
    total.par_chunks_mut(4096).enumerate().for_each(|(i, total)| {
        for sum in &sums {
            for (total, part) in total.iter_mut().zip(&sum[i * 4096..]) {
                *total += *part;
            }
        }
    });
    total
}

/// Adds one strip's product to `sum`, or sets `sum` to it.
fn add_strip<T: Element>(
    g: &Geometry,
    x: &[T],
    dy: &[T],
    strip: &Strip,
    accumulate: bool,
    buffer: &mut Vec<T>,
    sum: &mut [T],
) {
    let (columns, positions) = (strip.columns(), g.out_positions());
    let (in_image, out_image) = (g.in_channels * g.in_positions(), g.out_channels * positions);
    buffer.resize((g.patch() + g.group_out()) * strip::max_columns(g), T::ZERO);
    let (patches, gathered) = buffer.split_at_mut(g.patch() * strip::max_columns(g));
    for group in 0..g.groups {
        for (i, image) in strip.images.clone().enumerate() {
            let x = group_input(g, &x[image * in_image..(image + 1) * in_image], group);
            im2col(g, x, &strip.positions, patches, columns, i * strip.positions.len());
        }
        let dy = if strip.images.len() == 1 {
            let start = strip.images.start * out_image + group * g.group_out() * positions + strip.positions.start;
            MatRef::row_major(&dy[start..], g.group_out(), columns, positions)
        } else {
            for (i, image) in strip.images.clone().enumerate() {
                let dy = &dy[image * out_image + group * g.group_out() * positions..];
                for (dy, row) in dy
                    .chunks_exact(positions)
                    .zip(gathered.chunks_exact_mut(columns).take(g.group_out()))
                {
                    row[i * positions..(i + 1) * positions].copy_from_slice(dy);
                }
            }
            MatRef::row_major(gathered, g.group_out(), columns, columns)
        };
        let sum = &mut sum[group * g.group_out() * g.patch()..];
        let mut sum = MatMut::row_major(sum, g.group_out(), g.patch(), g.patch());
        gemm(
            &mut sum,
            accumulate,
            dy,
            MatRef::row_major(patches, g.patch(), columns, columns).transpose(),
        );
    }
}

/// The gradient `[K]` of the bias from `dy` `[N, K, positions]`, summed in f64.
pub(crate) fn backward_bias<T: Element>(dy: &[T], out_channels: usize, positions: usize) -> Vec<T> {
    (0..out_channels)
        .into_par_iter()
        .map(|k| {
            let planes = dy.chunks_exact(positions).skip(k).step_by(out_channels);
            T::narrow(planes.map(|plane| plane.iter().map(|v| v.widen()).sum::<f64>()).sum())
        })
        .collect()
}
