//! The gradient of a bias: the sum of the rows of a matrix.

use crate::simd::{Isa, Kernel, Simd};
use rayon::prelude::*;

/// Rows of a partial sum; a constant, so that the order of addition never changes.
const ROWS: usize = 1024;

/// Rows added at once, while a sum is in a register.
const AT_ONCE: usize = 4;

/// `Σ dy[row, k]` over the rows of `dy` `[rows, K]`, added in `f64`.
///
/// # Panics
/// If `k` is 0 or `dy` is not made of whole rows.
pub(crate) fn bias_gradient(dy: &[f32], k: usize) -> Vec<f32> {
    assert!(k > 0 && dy.len().is_multiple_of(k), "expected gradients [rows, K]");
    Isa::current().dispatch(BiasGradient { dy, k })
}

struct BiasGradient<'a> {
    dy: &'a [f32],
    k: usize,
}

impl Kernel for BiasGradient<'_> {
    type Output = Vec<f32>;

    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let sums: Vec<Vec<f64>> = self
            .dy
            .par_chunks(ROWS * self.k)
            .map(|dy| {
                let mut sums = vec![0.0; self.k];
                s.vectorize(AddRows { dy, sums: &mut sums });
                sums
            })
            .collect();
        let mut total = vec![0.0; self.k];
        for sums in sums {
            for (total, sum) in total.iter_mut().zip(sums) {
                *total += sum;
            }
        }
        total.into_iter().map(|sum| sum as f32).collect()
    }
}

/// Adds rows as wide as `sums` to it.
struct AddRows<'a> {
    dy: &'a [f32],
    sums: &'a mut [f64],
}

impl Kernel for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (k, sums) = (self.sums.len(), self.sums);
        let several = self.dy.chunks_exact(AT_ONCE * k);
        let rest = several.remainder();
        for rows in several {
            let (a, rows) = rows.split_at(k);
            let (b, rows) = rows.split_at(k);
            let (c, d) = rows.split_at(k);
            let d = &d[..k];
            for i in 0..k {
                sums[i] += (f64::from(a[i]) + f64::from(b[i])) + (f64::from(c[i]) + f64::from(d[i]));
            }
        }
        for row in rest.chunks_exact(k) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += f64::from(*value);
            }
        }
    }
}
