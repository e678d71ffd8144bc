//! The kernels over planes; one plane is one piece of work.
//!
//! A sum over rectangles is done one axis after the other: first each column of a row of windows, then each window.

use super::geometry::Geometry;
use crate::element::Element;
use rayon::prelude::*;

/// Elements below which planes are not shared out one by one.
const BLOCK: usize = 1 << 12;

/// The mean of each window of `x` `[N, C, H, W]`.
pub(super) fn means<T: Element>(g: &Geometry, x: &[T]) -> Vec<T> {
    let mut y = vec![T::ZERO; g.batch * g.channels * g.outputs()];
    y.par_chunks_mut(g.outputs())
        .zip(x.par_chunks(g.pixels()))
        .with_min_len(planes_at_once(g))
        .for_each_init(
            || vec![T::ZERO; g.columns.inputs()],
            |sums, (y, x)| means_of_plane(g, x, sums, y),
        );
    y
}

/// The gradient of the input, given `dy` `[N, C, P, Q]`.
pub(super) fn spread<T: Element>(g: &Geometry, dy: &[T]) -> Vec<T> {
    let mut dx = vec![T::ZERO; g.batch * g.channels * g.pixels()];
    dx.par_chunks_mut(g.pixels())
        .zip(dy.par_chunks(g.outputs()))
        .with_min_len(planes_at_once(g))
        .for_each_init(
            || vec![T::ZERO; g.columns.outputs()],
            |sums, (dx, dy)| spread_over_plane(g, dy, sums, dx),
        );
    dx
}

fn planes_at_once(g: &Geometry) -> usize {
    (BLOCK / g.pixels().max(g.outputs())).max(1)
}

fn means_of_plane<T: Element>(g: &Geometry, x: &[T], sums: &mut [T], y: &mut [T]) {
    for (p, y) in y.chunks_exact_mut(g.columns.outputs()).enumerate() {
        sums.fill(T::ZERO);
        let rows = &g.rows.windows[p];
        let width = g.columns.inputs();
        for x in x[rows.start * width..rows.end * width].chunks_exact(width) {
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += *x);
        }
        for (q, (y, columns)) in y.iter_mut().zip(&g.columns.windows).enumerate() {
            let sum = sums[columns.clone()].iter().fold(T::ZERO, |sum, x| sum + *x);
            *y = sum / T::narrow(g.count(p, q) as f64);
        }
    }
}

fn spread_over_plane<T: Element>(g: &Geometry, dy: &[T], sums: &mut [T], dx: &mut [T]) {
    for (dx, windows) in dx.chunks_exact_mut(g.columns.inputs()).zip(&g.rows.windows_of) {
        sums.fill(T::ZERO);
        for p in windows.clone() {
            let dy = &dy[p * g.columns.outputs()..][..g.columns.outputs()];
            for (q, (sum, dy)) in sums.iter_mut().zip(dy).enumerate() {
                *sum += *dy / T::narrow(g.count(p, q) as f64);
            }
        }
        for (dx, windows) in dx.iter_mut().zip(&g.columns.windows_of) {
            *dx = sums[windows.clone()].iter().fold(T::ZERO, |sum, dy| sum + *dy);
        }
    }
}
