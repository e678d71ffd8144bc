//! Convolution of images with few channels, the first layer's: stride 1, square kernel, channels-last slices of `f32`.
//!
//! Strips of patches that stay in cache, multiplied by the weight as a matrix `[R·R·C, K]`. There is no gradient of the
//! input, since images need none.
//!
//! Shapes in this module: `x` `[N, H, W, C]`, `weight` `[K, C, R, R]`, `y` and `dy` `[N, P, Q, K]` with
//! `P = H + 2·padding − R + 1` and `Q` alike; a pixel of the output is a row of a matrix `[N·P·Q, K]`.

mod bias;
mod patches;

use crate::gemm::{MatMut, MatRef, gemm};
use patches::Patches;
use rayon::prelude::*;

pub(crate) use bias::bias_gradient;

/// Output pixels of a strip: their patches and outputs stay in cache, and their sum in `f32` loses little.
const STRIP: usize = 256;

/// Strips of a partial sum; a constant, so that the order of addition never changes.
const STRIPS_PER_SUM: usize = 16;

/// The convolution.
///
/// ```text
/// y[n, p, q, k] = bias[k] + Σ_c Σ_r Σ_s weight[k, c, r, s] · x[n, p + r − padding, q + s − padding, c],  outside: 0
/// ```
///
/// # Panics
/// If a size but `n` is 0, the kernel is larger than the padded image, or a slice has another length than its shape.
#[allow(clippy::too_many_arguments, reason = "the sizes of a convolution")]
pub(crate) fn forward(
    x: &[f32],
    [n, h, w, c]: [usize; 4],
    weight: &[f32],
    bias: Option<&[f32]>,
    k: usize,
    r: usize,
    padding: usize,
    y: &mut [f32],
) {
    let patches = Patches::new(x, [n, h, w, c], r, padding);
    let depth = patches.depth();
    assert!(k > 0, "expected output channels");
    assert_eq!(weight.len(), k * depth, "expected a weight [K, C, R, R]");
    assert_eq!(y.len(), patches.count() * k, "expected outputs [N, P, Q, K]");
    assert!(bias.is_none_or(|bias| bias.len() == k), "expected a bias [K]");
    let weight = to_matrix(weight, k, r * r, c);
    let weight = MatRef::row_major(&weight, depth, k, k);
    y.par_chunks_mut(STRIP * k)
        .enumerate()
        .for_each_init(Vec::new, |buffer, (strip, y)| {
            let rows = y.len() / k;
            if let Some(bias) = bias {
                for y in y.chunks_exact_mut(k) {
                    y.copy_from_slice(bias);
                }
            }
            patches.gather(strip * STRIP, rows, buffer);
            gemm(
                &mut MatMut::row_major(y, rows, k, k),
                bias.is_some(),
                MatRef::row_major(buffer, rows, depth, depth),
                weight,
            );
        });
}

/// The gradient of the weight, `dw` `[K, C, R, R]`.
///
/// ```text
/// dw[k, c, r, s] = Σ_n Σ_p Σ_q dy[n, p, q, k] · x[n, p + r − padding, q + s − padding, c],  outside: 0
/// ```
///
/// A strip's products are added in `f32`, the strips in `f64`.
///
/// # Panics
/// As [`forward`].
pub(crate) fn backward_weights(
    x: &[f32],
    [n, h, w, c]: [usize; 4],
    dy: &[f32],
    k: usize,
    r: usize,
    padding: usize,
    dw: &mut [f32],
) {
    let patches = Patches::new(x, [n, h, w, c], r, padding);
    let depth = patches.depth();
    assert!(k > 0, "expected output channels");
    assert_eq!(dy.len(), patches.count() * k, "expected gradients [N, P, Q, K]");
    assert_eq!(dw.len(), k * depth, "expected a gradient [K, C, R, R]");
    let sums: Vec<Vec<f64>> = dy
        .par_chunks(STRIPS_PER_SUM * STRIP * k)
        .enumerate()
        .map_init(
            || (Vec::new(), vec![0.0; depth * k]),
            |(buffer, product), (chunk, dy)| {
                let mut sum = vec![0.0; depth * k];
                for (strip, dy) in dy.chunks(STRIP * k).enumerate() {
                    let rows = dy.len() / k;
                    patches.gather((chunk * STRIPS_PER_SUM + strip) * STRIP, rows, buffer);
                    gemm(
                        &mut MatMut::row_major(product, depth, k, k),
                        false,
                        MatRef::row_major(buffer, rows, depth, depth).transpose(),
                        MatRef::row_major(dy, rows, k, k),
                    );
                    for (sum, product) in sum.iter_mut().zip(&*product) {
                        *sum += f64::from(*product);
                    }
                }
                sum
            },
        )
        .collect();
    let mut total = vec![0.0; depth * k];
    for sum in sums {
        for (total, sum) in total.iter_mut().zip(sum) {
            *total += sum;
        }
    }
    for (channel, dw) in dw.chunks_exact_mut(depth).enumerate() {
        for (i, dw) in dw.iter_mut().enumerate() {
            let (c_in, tap) = (i / (r * r), i % (r * r));
            *dw = total[(tap * c + c_in) * k + channel] as f32;
        }
    }
}

/// A weight `[K, C, R, R]` as a matrix `[R·R·C, K]`.
fn to_matrix(weight: &[f32], k: usize, taps: usize, c: usize) -> Vec<f32> {
    let mut matrix = vec![0.0; weight.len()];
    for (channel, weight) in weight.chunks_exact(taps * c).enumerate() {
        for (i, weight) in weight.iter().enumerate() {
            let (c_in, tap) = (i / taps, i % taps);
            matrix[(tap * c + c_in) * k + channel] = *weight;
        }
    }
    matrix
}

#[cfg(test)]
mod tests;
