//! A matrix brought near to an orthogonal one by Newton-Schulz iterations.

use candle_core::{D, Tensor};
use rayon::prelude::*;

use crate::element::{self, Element, dispatch};
use crate::gemm::{MatMut, MatRef, gemm};
use crate::{Error, Result};

const OP: &str = "newton_schulz";

/// Rows of a product that are one piece of work.
const ROWS: usize = 16;

/// The coefficients of the published quintic iteration: the steepest at 0 that still keeps singular values near 1.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.775, 2.0315];

/// A matrix with the singular vectors of `matrix` and singular values between about 0.7 and 1.2, after 5 steps.
///
/// ```text
/// X = matrix / max(‖matrix‖, eps), transposed if it has more rows than columns
/// steps times:  A = X Xᵀ,  X = a X + (b A + c A²) X,  (a, b, c) = (3.4445, −4.775, 2.0315)
/// ```
///
/// # Shapes
/// `[rows, cols]`, and so is the result.
///
/// # Errors
/// [`Error::ShapeMismatch`] for anything but a matrix with elements, [`Error::DTypeMismatch`].
///
/// # Source
/// Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; `_zeropower_via_newtonschulz` of
/// `torch.optim.Muon` without its rounding to bfloat16; proved by the golden file `optimizers` of `kestrel-train`.
pub fn newton_schulz(matrix: &Tensor, steps: u64, eps: f64) -> Result<Tensor> {
    element::require_float(OP, matrix)?;
    let (rows, cols) = match *matrix.dims() {
        [rows, cols] if rows > 0 && cols > 0 => (rows, cols),
        ref got => {
            return Err(Error::ShapeMismatch {
                op: OP,
                expected: "[rows, cols]".to_owned(),
                got: got.to_vec(),
            });
        }
    };
    let tall = rows > cols;
    let wide = if tall {
        matrix.t()?.contiguous()?
    } else {
        matrix.contiguous()?
    }
    .detach();
    let result = if matrix.device().is_cpu() {
        let device = matrix.device();
        let x: Tensor = dispatch!(OP, matrix.dtype(), T => {
            let x = element::with_slice::<T, _>(OP, &wide, |x| iterate(x, rows.min(cols), steps, eps))?;
            Tensor::from_vec(x, wide.shape(), device)
        })?;
        x
    } else {
        composite(&wide, steps, eps)?
    };
    Ok(if tall { result.t()?.contiguous()? } else { result })
}

/// The iterations on a matrix of `rows` rows and at least as many columns.
fn iterate<T: Element>(matrix: &[T], rows: usize, steps: u64, eps: f64) -> Vec<T> {
    let cols = matrix.len() / rows;
    // One thread adds: the matrix is read `steps` times more by the products.
    let norm = matrix.iter().map(|v| v.widen() * v.widen()).sum::<f64>().sqrt();
    let scale = T::narrow(norm.max(eps));
    let mut x: Vec<T> = matrix.iter().map(|v| *v / scale).collect();
    let [a, b, c] = COEFFICIENTS.map(T::narrow);
    let (mut gram, mut factor) = (vec![T::ZERO; rows * rows], vec![T::ZERO; rows * rows]);
    let mut next = vec![T::ZERO; x.len()];
    for _ in 0..steps {
        let whole = MatRef::row_major(&x, rows, cols, cols);
        product(&mut gram, rows, &x, cols, whole.transpose());
        product(
            &mut factor,
            rows,
            &gram,
            rows,
            MatRef::row_major(&gram, rows, rows, rows),
        );
        for (factor, gram) in factor.iter_mut().zip(&gram) {
            *factor = b * *gram + c * *factor;
        }
        product(&mut next, cols, &factor, rows, whole);
        next.par_chunks_mut(ROWS * cols)
            .zip(x.par_chunks(ROWS * cols))
            .for_each(|(next, x)| {
                for (next, x) in next.iter_mut().zip(x) {
                    *next += a * *x;
                }
            });
        std::mem::swap(&mut x, &mut next);
    }
    x
}

/// `out = left right`, where rows of `out` are `width` and rows of `left` are `depth` long.
fn product<T: Element>(out: &mut [T], width: usize, left: &[T], depth: usize, right: MatRef<'_, T>) {
    out.par_chunks_mut(ROWS * width)
        .zip(left.par_chunks(ROWS * depth))
        .for_each(|(out, left)| {
            let rows = left.len() / depth;
            let mut out = MatMut::row_major(out, rows, width, width);
            gemm(&mut out, false, MatRef::row_major(left, rows, depth, depth), right);
        });
}

/// The same from candle's own ops.
fn composite(wide: &Tensor, steps: u64, eps: f64) -> candle_core::Result<Tensor> {
    let [a, b, c] = COEFFICIENTS;
    let norm = wide.sqr()?.sum_keepdim((D::Minus2, D::Minus1))?.sqrt()?;
    let mut x = wide.broadcast_div(&norm.maximum(eps)?)?;
    for _ in 0..steps {
        let gram = x.matmul(&x.t()?)?;
        let factor = ((&gram * b)? + (gram.matmul(&gram)? * c)?)?;
        x = ((&x * a)? + factor.matmul(&x)?)?;
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn matrix(rows: usize, cols: usize) -> candle_core::Result<Tensor> {
        let values: Vec<f64> = (0..rows * cols).map(|i| (i as f64 * 1.7 + 0.3).sin() * 3.0).collect();
        Tensor::from_vec(values, (rows, cols), &Device::Cpu)
    }

    #[test]
    fn composite_agrees_with_the_kernel() -> candle_core::Result<()> {
        for (rows, cols) in [(1, 1), (1, 7), (5, 5), (17, 40), (40, 17), (33, 34)] {
            let fast = newton_schulz(&matrix(rows, cols)?, 5, 1e-7)?;
            let wide = if rows > cols {
                matrix(rows, cols)?.t()?.contiguous()?
            } else {
                matrix(rows, cols)?
            };
            let slow = composite(&wide, 5, 1e-7)?;
            let slow = if rows > cols { slow.t()? } else { slow };
            let error = (fast - slow)?.abs()?.max_all()?.to_scalar::<f64>()?;
            assert!(error < 1e-10, "{rows}x{cols}: {error}");
        }
        Ok(())
    }

    /// The rows of a wide matrix come out nearly orthonormal.
    #[test]
    fn singular_values_come_near_to_one() -> candle_core::Result<()> {
        let values: Vec<f64> = (0..8 * 30)
            .map(|i: i32| f64::from((i * i * 31 + i * 7) % 101) - 50.0)
            .collect();
        let x = newton_schulz(&Tensor::from_vec(values, (8, 30), &Device::Cpu)?, 5, 1e-7)?;
        let gram = x.matmul(&x.t()?)?;
        let error = (gram - Tensor::eye(8, DType::F64, &Device::Cpu)?)?
            .abs()?
            .max_all()?
            .to_scalar::<f64>()?;
        assert!(error < 0.6, "{error}");
        Ok(())
    }

    #[test]
    fn zeros_stay_zeros_and_vectors_are_refused() -> candle_core::Result<()> {
        let zeros = Tensor::zeros((3, 4), DType::F32, &Device::Cpu)?;
        assert_eq!(
            newton_schulz(&zeros, 5, 1e-7)?.abs()?.sum_all()?.to_scalar::<f32>()?,
            0.0
        );
        assert!(newton_schulz(&Tensor::zeros(3, DType::F32, &Device::Cpu)?, 5, 1e-7).is_err());
        Ok(())
    }
}
