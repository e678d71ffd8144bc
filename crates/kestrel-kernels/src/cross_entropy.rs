//! Cross-entropy of logits against class indices, fused with log-softmax.

use crate::element::{self, Element, dispatch};
use crate::{Error, Result};
use candle_core::{CpuStorage, CustomOp1, D, DType, Device, Layout, Shape, Tensor, WithDType};
use rayon::prelude::*;

const OP: &str = "cross_entropy";

/// Rows of a piece of work.
const ROWS: usize = 64;

/// Mean over the batch of the negative log-probability of each sample's class.
///
/// ```text
/// loss = − Σ_n log softmax(logits[n])[targets[n]] / N,  dlogits = (softmax(logits) − onehot(targets)) / N
/// ```
///
/// The targets are read and checked on the host, whatever the device: an index that the logits do not have is an error,
/// never a loss of 0.
///
/// # Shapes
/// `logits` `[N, C]`, `targets` `[N]` of `u32`; the result is a scalar.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::TargetOutOfRange`], [`Error::EmptyBatch`].
///
/// # Source
/// `torch.nn.functional.cross_entropy(reduction="mean")`; proved by `tests/golden/cross_entropy.safetensors`.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    element::require_float("cross_entropy logits", logits)?;
    let (batch, num_classes) = match *logits.dims() {
        [batch, num_classes] => (batch, num_classes),
        ref got => {
            return Err(Error::ShapeMismatch {
                op: "cross_entropy logits",
                expected: "[N, C]".to_owned(),
                got: got.to_vec(),
            });
        }
    };
    if targets.dtype() != DType::U32 {
        return Err(Error::DTypeMismatch {
            op: "cross_entropy targets",
            expected: "u32".to_owned(),
            got: targets.dtype(),
        });
    }
    element::require_shape("cross_entropy targets", targets, &[batch])?;
    if batch == 0 {
        return Err(Error::EmptyBatch { op: OP });
    }
    let classes = targets.to_vec1::<u32>()?;
    if let Some((index, target)) = classes
        .iter()
        .enumerate()
        .find(|(_, target)| **target as usize >= num_classes)
    {
        return Err(Error::TargetOutOfRange {
            index,
            target: *target,
            num_classes,
        });
    }
    if !logits.device().is_cpu() {
        return Ok(composite(logits, targets)?);
    }
    Ok(logits.contiguous()?.apply_op1(CrossEntropy {
        targets: classes,
        num_classes,
    })?)
}

/// The same value and gradient from candle's own ops.
fn composite(logits: &Tensor, targets: &Tensor) -> candle_core::Result<Tensor> {
    let log_probabilities = candle_nn::ops::log_softmax(logits, D::Minus1)?;
    log_probabilities.gather(&targets.unsqueeze(1)?, 1)?.mean_all()?.neg()
}

/// The op that candle's autograd records; every target is below `num_classes`.
struct CrossEntropy {
    targets: Vec<u32>,
    num_classes: usize,
}

impl CrossEntropy {
    /// A row's maximum and `log Σ exp(logit − maximum)`.
    fn log_sum_exp<T: Element>(row: &[T]) -> (f64, f64) {
        let max = row.iter().map(|v| v.widen()).fold(f64::NEG_INFINITY, f64::max);
        (max, row.iter().map(|v| (v.widen() - max).exp()).sum::<f64>().ln())
    }

    fn loss<T: Element>(&self, logits: &[T]) -> f64 {
        let losses: Vec<f64> = logits
            .par_chunks(self.num_classes)
            .with_min_len(ROWS)
            .zip(&self.targets)
            .map(|(row, target)| {
                let (max, log_sum) = Self::log_sum_exp(row);
                log_sum - (row[*target as usize].widen() - max)
            })
            .collect();
        losses.iter().sum::<f64>() / losses.len() as f64
    }

    fn backward<T: Element>(&self, logits: &[T], grad: f64) -> Vec<T> {
        let scale = grad / self.targets.len() as f64;
        let mut dlogits = vec![T::ZERO; logits.len()];
        dlogits
            .par_chunks_mut(self.num_classes)
            .zip(logits.par_chunks(self.num_classes))
            .with_min_len(ROWS)
            .zip(&self.targets)
            .for_each(|((dlogits, row), target)| {
                let (max, log_sum) = Self::log_sum_exp(row);
                for (class, (dlogit, logit)) in dlogits.iter_mut().zip(row).enumerate() {
                    let onehot = if class == *target as usize { 1.0 } else { 0.0 };
                    *dlogit = T::narrow(((logit.widen() - max - log_sum).exp() - onehot) * scale);
                }
            });
        dlogits
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        dispatch!(OP, candle_core::backend::BackendStorage::dtype(logits), T => {
            let loss = self.loss(element::slice::<T>(OP, logits, layout)?);
            Ok((T::to_cpu_storage_owned(vec![T::narrow(loss)]), Shape::from(())))
        })
    }

    fn bwd(&self, logits: &Tensor, _loss: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        dispatch!(OP, grad.dtype(), T => {
            let grad = grad.to_scalar::<T>()?.widen();
            let dlogits = element::with_slice::<T, _>(OP, logits, |logits| self.backward(logits, grad))?;
            Ok(Some(Tensor::from_vec(dlogits, logits.shape(), &Device::Cpu)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    #[test]
    fn composite_agrees_with_the_kernel() -> candle_core::Result<()> {
        let logits = Var::randn(0f64, 3f64, (5, 4), &Device::Cpu)?;
        let targets = Tensor::new(&[3u32, 0, 1, 1, 2], &Device::Cpu)?;
        let (fast, slow) = (cross_entropy(&logits, &targets)?, composite(&logits, &targets)?);
        assert!((fast.to_scalar::<f64>()? - slow.to_scalar::<f64>()?).abs() < 1e-13);
        let (fast, slow) = (fast.backward()?, slow.backward()?);
        let (Some(fast), Some(slow)) = (fast.get(&logits), slow.get(&logits)) else {
            panic!("no gradient")
        };
        assert!((fast - slow)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-14);
        assert!(slow.abs()?.min_all()?.to_scalar::<f64>()? > 0.0);
        Ok(())
    }
}
