//! Averages of weights and norms of gradients, each in one pass.

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use super::fused::pass;
use crate::Result;
use crate::element::{self, Element, dispatch};

/// Elements whose squares are added up in one go.
const BLOCK: usize = 1 << 13;

/// Moves `average` towards `value` in place: `average += weight (value − average)`.
///
/// With the weight `1 − decay` this is an exponential moving average, with `1 / (n + 1)` the mean of `n + 1` values.
///
/// # Shapes
/// Both have the same; `average` is contiguous.
///
/// # Errors
/// [`ShapeMismatch`](crate::Error::ShapeMismatch), [`DTypeMismatch`](crate::Error::DTypeMismatch), candle's
/// `RequiresContiguous`.
///
/// # Source
/// `torch.Tensor.lerp_`, which `torch.optim.swa_utils.AveragedModel` uses; proved by the golden file `averages` of
/// `kestrel-train`.
pub fn average_step(average: &Tensor, value: &Tensor, weight: f64) -> Result<()> {
    const OP: &str = "average_step";
    element::require_float(OP, average)?;
    element::require_same_dtype(OP, value, average)?;
    element::require_shape(OP, value, average.dims())?;
    element::require_contiguous(OP, average)?;
    let value = value.detach();
    if !average.device().is_cpu() {
        let now = average.detach();
        let moved = (&now + ((value - &now)? * weight)?)?;
        return Ok(average.flatten_all()?.slice_set(&moved.flatten_all()?, 0, 0)?);
    }
    Ok(dispatch!(OP, average.dtype(), T => {
        let (near, far) = (T::narrow(weight), T::narrow(1.0 - weight));
        let from_start = weight < 0.5;
        pass::<T, 1>(OP, [average], &value, move |[average], value| {
            let way = value - average;
            [if from_start { average + near * way } else { value - way * far }]
        })
    })?)
}

/// The sum of the squares of a tensor's elements, added up in `f64`.
///
/// # Errors
/// [`DTypeMismatch`](crate::Error::DTypeMismatch).
pub fn squared_norm(tensor: &Tensor) -> Result<f64> {
    const OP: &str = "squared_norm";
    element::require_float(OP, tensor)?;
    let tensor = tensor.detach();
    if !tensor.device().is_cpu() {
        return Ok(tensor.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar()?);
    }
    Ok(dispatch!(OP, tensor.dtype(), T => element::with_slice::<T, _>(OP, &tensor, sum_of_squares))?)
}

/// The [`squared_norm`] of each of many tensors of one device, as numbers there, for which nobody waits; on a GPU in one launch
/// for each few dozen tensors.
///
/// # Shapes
/// The result is `[P]` of `f64`, for `P` tensors, at least one.
///
/// # Errors
/// [`DTypeMismatch`](crate::Error::DTypeMismatch), and candle's for no tensors.
pub fn squared_norms(tensors: &[Tensor]) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if !tensors.is_empty() && tensors.iter().all(super::check::on_gpu) {
        return Ok(crate::cuda::squared_norms(tensors)?);
    }
    let one = |tensor: &Tensor| -> Result<Tensor> {
        if tensor.device().is_cpu() {
            return Ok(Tensor::new(squared_norm(tensor)?, tensor.device())?);
        }
        element::require_float("squared_norm", tensor)?;
        Ok(tensor.detach().to_dtype(DType::F64)?.sqr()?.sum_all()?)
    };
    let norms = tensors.iter().map(one).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::stack(&norms, 0)?)
}

fn sum_of_squares<T: Element>(elements: &[T]) -> f64 {
    let sums: Vec<f64> = elements
        .par_chunks(BLOCK)
        .map(|block| block.iter().map(|v| v.widen() * v.widen()).sum())
        .collect();
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn equal_weights_give_the_mean() -> candle_core::Result<()> {
        let values: Vec<Tensor> = (0..7)
            .map(|i| Tensor::new(&[f64::from(i), f64::from(i * i)], &Device::Cpu))
            .collect::<candle_core::Result<_>>()?;
        let average = values[0].copy()?;
        for (n, value) in values.iter().enumerate() {
            average_step(&average, value, 1.0 / (n + 1) as f64)?;
        }
        let got = average.to_vec1::<f64>()?;
        assert!((got[0] - 3.0).abs() < 1e-14 && (got[1] - 13.0).abs() < 1e-14, "{got:?}");
        Ok(())
    }

    #[test]
    fn a_tensor_is_not_averaged_with_itself() -> candle_core::Result<()> {
        let tensor = Tensor::ones(3, DType::F32, &Device::Cpu)?.copy()?;
        assert!(
            average_step(&tensor, &tensor, 0.1)
                .unwrap_err()
                .to_string()
                .contains("share")
        );
        Ok(())
    }

    #[test]
    fn the_norm_is_the_sum_of_squares() -> candle_core::Result<()> {
        let n = BLOCK + 3;
        let tensor = Tensor::full(2f32, n, &Device::Cpu)?;
        assert_eq!(squared_norm(&tensor)?, 4.0 * n as f64);
        assert_eq!(squared_norm(&Tensor::zeros(0, DType::F64, &Device::Cpu)?)?, 0.0);
        Ok(())
    }
}
