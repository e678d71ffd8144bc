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

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// Sums that cancel to a millionth of their terms, and sums of one sign, which grow.
    #[test]
    fn bias_gradient_agrees_with_f64() {
        for k in [1, 3, 7, 16, 17, 64] {
            for rows in [1, 2, 3, 4, 5, 1023, 1025, 5003] {
                let signed = values(rows * k, 5);
                let positive: Vec<f32> = signed.iter().map(|v| v + 1.5).collect();
                for dy in [signed, positive] {
                    let mut expected = vec![0.0; k];
                    for (i, dy) in dy.iter().enumerate() {
                        expected[i % k] += f64::from(*dy);
                    }
                    for (got, expected) in bias_gradient(&dy, k).iter().zip(&expected) {
                        let error = (f64::from(*got) - expected).abs();
                        assert!(error <= 1e-7 * expected.abs(), "[{rows}, {k}]: {got} {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_rows_have_no_gradient() {
        assert_eq!(bias_gradient(&[], 3), [0.0; 3]);
    }

    #[test]
    fn bit_equal_for_any_thread_count() {
        let dy = values(5003 * 17, 4);
        let results = [1, 2, 4].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let sums = pool.install(|| bias_gradient(&dy, 17));
            sums.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        });
        assert!(results[0] == results[1] && results[0] == results[2]);
    }
}
