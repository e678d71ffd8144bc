//! The products of a fully connected layer on slices.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::element::{Element, written};
use crate::gemm::{MatMut, MatRef, gemm, gemm_into};

/// Columns of a product that are one piece of work.
const COLUMNS: usize = 64;

/// Rows and columns of a tile that is transposed at once: a cache line of `f32`.
const TILE: usize = 16;

/// Elements below which copies and sums are not shared out.
const BLOCK: usize = 1 << 14;

/// Sizes of a fully connected layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    /// At least 1.
    pub(crate) inputs: usize,
    /// At least 1.
    pub(crate) outputs: usize,
}

/// `y = x weightᵀ + bias`, and its negative values 0 if `relu`: `x` is `[N, I]`, `weight` `[O, I]`, `bias` `[O]`, `y`
/// `[N, O]`; all of `y` is written.
pub(crate) fn forward<T: Element>(size: Size, x: &[T], weight: &[T], bias: Option<&[T]>, relu: bool, y: &mut [T]) {
    let Size { rows, inputs, outputs } = size;
    assert_eq!(
        [x.len(), weight.len(), y.len(), bias.map_or(outputs, <[T]>::len)],
        [rows * inputs, outputs * inputs, rows * outputs, outputs],
        "sizes of a fully connected layer"
    );
    if rows == 0 {
        return;
    }
    let y = MatMut::row_major(y, rows, outputs, outputs);
    let blocks: Vec<_> = y.column_blocks(COLUMNS).collect();
    let gated = |sum: T| if relu && sum <= T::ZERO { T::ZERO } else { sum };
    if rows < TILE {
        // Too few rows to fill a vector: the product runs along the outputs.
        let x = MatRef::row_major(x, rows, inputs, inputs);
        let weight = MatRef::row_major(weight, outputs, inputs, inputs).transpose();
        blocks.into_par_iter().for_each(|(start, mut y)| {
            let columns = start..(start + COLUMNS).min(outputs);
            if let Some(bias) = bias {
                (0..rows).for_each(|n| y.row_mut(n).copy_from_slice(&bias[columns.clone()]));
            }
            gemm(&mut y, bias.is_some(), x, weight.columns(columns));
            (0..rows).for_each(|n| y.row_mut(n).iter_mut().for_each(|y| *y = gated(*y)));
        });
        return;
    }
    // `gemm` wants both factors of `yᵀ = weight xᵀ` as they then lie in memory; of `x weightᵀ` it would gather each
    // element from rows a power of two apart. The input is usually the smaller one to transpose.
    let x_transposed = transpose(x, rows, inputs);
    let x_transposed = MatRef::row_major(&x_transposed, inputs, rows, rows);
    blocks.into_par_iter().for_each_init(
        || vec![T::ZERO; COLUMNS.min(outputs) * rows],
        |sums, (start, mut y)| {
            let count = COLUMNS.min(outputs - start);
            let sums = &mut sums[..count * rows];
            let weight = MatRef::row_major(&weight[start * inputs..], count, inputs, inputs);
            gemm(
                &mut MatMut::row_major(sums, count, rows, rows),
                false,
                weight,
                x_transposed,
            );
            for n in 0..rows {
                for (o, y) in y.row_mut(n).iter_mut().enumerate() {
                    *y = gated(bias.map_or(T::ZERO, |bias| bias[start + o]) + sums[o * rows + n]);
                }
            }
        },
    );
}

/// `dx = dy weight`: `dy` is `[N, O]`, `weight` `[O, I]`, `dx` `[N, I]`.
pub(crate) fn backward_input<T: Element>(size: Size, dy: &[T], weight: &[T]) -> Vec<T> {
    let Size { rows, inputs, outputs } = size;
    assert_eq!(
        [dy.len(), weight.len()],
        [rows * outputs, outputs * inputs],
        "sizes of an input's gradient"
    );
    if rows == 0 {
        return Vec::new();
    }
    let dy = MatRef::row_major(dy, rows, outputs, outputs);
    let weight = MatRef::row_major(weight, outputs, inputs, inputs);
    product((rows, inputs), dy, weight)
}

/// `dweight = dyᵀ x`: `dy` is `[N, O]`, `x` `[N, I]`, `dweight` `[O, I]`.
pub(crate) fn backward_weight<T: Element>(size: Size, dy: &[T], x: &[T]) -> Vec<T> {
    let Size { rows, inputs, outputs } = size;
    assert_eq!(
        [dy.len(), x.len()],
        [rows * outputs, rows * inputs],
        "sizes of a weight's gradient"
    );
    if rows == 0 {
        return vec![T::ZERO; outputs * inputs];
    }
    let dy = MatRef::row_major(dy, rows, outputs, outputs).transpose();
    let x = MatRef::row_major(x, rows, inputs, inputs);
    product((outputs, inputs), dy, x)
}

/// `dbias = Σ_n dy[n]`, summed in `f64`: `dy` is `[N, O]`, `dbias` `[O]`.
pub(crate) fn backward_bias<T: Element>(size: Size, dy: &[T]) -> Vec<T> {
    let Size { rows, outputs, .. } = size;
    assert_eq!(dy.len(), rows * outputs, "sizes of a bias's gradient");
    let mut dbias = vec![T::ZERO; outputs];
    dbias
        .par_chunks_mut(COLUMNS)
        .enumerate()
        .with_min_len((BLOCK / (COLUMNS * rows.max(1))).max(1))
        .for_each(|(block, dbias)| {
            let mut sums = [0.0; COLUMNS];
            let sums = &mut sums[..dbias.len()];
            for dy in dy.chunks_exact(outputs) {
                let dy = &dy[block * COLUMNS..][..sums.len()];
                sums.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy.widen());
            }
            for (dbias, sum) in dbias.iter_mut().zip(sums) {
                *dbias = T::narrow(*sum);
            }
        });
    dbias
}

/// `a b` of this shape, shared out by columns.
fn product<T: Element>(shape: (usize, usize), a: MatRef<'_, T>, b: MatRef<'_, T>) -> Vec<T> {
    let fill = |out: &mut [MaybeUninit<T>]| {
        let out = MatMut::row_major(out, shape.0, shape.1, shape.1);
        let blocks: Vec<_> = out.column_blocks(COLUMNS).collect();
        blocks.into_par_iter().with_max_len(1).for_each(|(start, mut block)| {
            let columns = start..(start + COLUMNS).min(shape.1);
            gemm_into(&mut block, a, b.columns(columns));
        });
    };
    // SAFETY: the blocks make up the matrix, which is all of the slice, and a product writes the whole of its block.
    unsafe { written(shape.0 * shape.1, fill) }
}

/// The transposed of a matrix in rows, itself in rows; one strip of columns is one piece of work.
fn transpose<T: Element>(matrix: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut transposed = vec![T::ZERO; matrix.len()];
    transposed
        .par_chunks_mut(TILE * rows)
        .enumerate()
        .with_min_len((BLOCK / (TILE * rows)).max(1))
        .for_each(|(strip, transposed)| {
            let first = strip * TILE;
            let width = TILE.min(columns - first);
            for top in (0..rows).step_by(TILE) {
                let height = TILE.min(rows - top);
                let mut tile = [[T::ZERO; TILE]; TILE];
                for r in 0..height {
                    let row = &matrix[(top + r) * columns + first..][..width];
                    for (c, value) in row.iter().enumerate() {
                        tile[c][r] = *value;
                    }
                }
                for (row, tile) in transposed.chunks_exact_mut(rows).zip(&tile) {
                    row[top..top + height].copy_from_slice(&tile[..height]);
                }
            }
        });
    transposed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every size around the tiles' and blocks' edges against three loops, in whole numbers, into buffers that hold
    /// something else.
    #[test]
    fn awkward_sizes_agree_with_three_loops() {
        let sizes = [1, 2, 15, 16, 17, 64, 65];
        for rows in sizes.into_iter().chain([0]) {
            for inputs in sizes {
                for outputs in sizes {
                    let size = Size { rows, inputs, outputs };
                    let values = |count: usize, period: usize| -> Vec<f64> {
                        (0..count).map(|i| (i * 5 % period) as f64 - 3.0).collect()
                    };
                    let (x, weight) = (values(rows * inputs, 11), values(outputs * inputs, 7));
                    let (bias, dy) = (values(outputs, 13), values(rows * outputs, 9));
                    let x_at = |n: usize, i: usize| x[n * inputs + i];
                    let weight_at = |o: usize, i: usize| weight[o * inputs + i];
                    let dy_at = |n: usize, o: usize| dy[n * outputs + o];

                    for (relu, bias) in [(false, None), (true, Some(&bias[..])), (false, Some(&bias[..]))] {
                        let mut y = vec![f64::NAN; rows * outputs];
                        forward(size, &x, &weight, bias, relu, &mut y);
                        for (at, y) in y.iter().enumerate() {
                            let (n, o) = (at / outputs, at % outputs);
                            let sum: f64 = (0..inputs).map(|i| x_at(n, i) * weight_at(o, i)).sum();
                            let sum = sum + bias.map_or(0.0, |bias| bias[o]);
                            assert_eq!(*y, if relu { sum.max(0.0) } else { sum }, "{size:?} at {n} {o}");
                        }
                    }

                    let dx = backward_input(size, &dy, &weight);
                    assert_eq!(dx.len(), x.len());
                    for (at, dx) in dx.iter().enumerate() {
                        let (n, i) = (at / inputs, at % inputs);
                        let sum: f64 = (0..outputs).map(|o| dy_at(n, o) * weight_at(o, i)).sum();
                        assert_eq!(*dx, sum, "{size:?} at {n} {i}");
                    }
                    let dweight = backward_weight(size, &dy, &x);
                    assert_eq!(dweight.len(), weight.len());
                    for (at, dweight) in dweight.iter().enumerate() {
                        let (o, i) = (at / inputs, at % inputs);
                        let sum: f64 = (0..rows).map(|n| dy_at(n, o) * x_at(n, i)).sum();
                        assert_eq!(*dweight, sum, "{size:?} at {o} {i}");
                    }
                    let dbias = backward_bias(size, &dy);
                    assert_eq!(dbias.len(), outputs);
                    for (o, dbias) in dbias.iter().enumerate() {
                        assert_eq!(*dbias, (0..rows).map(|n| dy_at(n, o)).sum::<f64>(), "{size:?} at {o}");
                    }
                }
            }
        }
    }
}
