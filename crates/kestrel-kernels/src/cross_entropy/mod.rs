//! Cross-entropy of logits against class indices or probabilities, fused with log-softmax.

mod composite;
pub(crate) mod kernel;

use crate::element::{self, Element, dispatch};
use crate::{Error, Result};
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor, WithDType};
use kernel::{Loss, Targets};

const OP: &str = "cross_entropy";

/// Options of [`cross_entropy_with`]; the default is the plain loss.
#[derive(Clone, Debug, Default)]
pub struct CrossEntropyConfig {
    /// Share of the target that is spread evenly over all classes, in `[0, 1]`.
    pub label_smoothing: f64,
    /// A factor for each class, `[C]`, of the logits' element type; it gets no gradient.
    pub class_weights: Option<Tensor>,
}

/// Mean over the batch of the negative log-probability of each sample's class.
///
/// ```text
/// loss = − Σ_n log softmax(logits[n])[targets[n]] / N,  dlogits = (softmax(logits) − onehot(targets)) / N
/// ```
///
/// The targets may be probabilities instead of classes: see [`cross_entropy_with`], which this is with its default
/// options. Classes are read and checked on the host: an index that the logits do not have is an error, never a loss of 0. Only
/// where the logits are `f32` on a GPU and the build has the `cuda` feature the host does not see them: such an index makes loss
/// and gradient NaN there.
///
/// # Shapes
/// `logits` `[N, C]`, `targets` `[N]` of `u32`, or `[N, C]` of the logits' element type; the result is a scalar.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::TargetOutOfRange`] (but on a GPU, as above),
/// [`Error::EmptyBatch`].
///
/// # Source
/// `torch.nn.functional.cross_entropy(reduction="mean")`; proved by `tests/golden/cross_entropy.safetensors`.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    cross_entropy_with(logits, targets, &CrossEntropyConfig::default())
}

/// Mean over the batch of the cross-entropy against smoothed and weighted targets.
///
/// ```text
/// loss = − Σ_n Σ_c a[n, c] · log softmax(logits[n])[c] / D,  dlogits = (softmax(logits) · Σ_c a − a) / D
///
/// classes:        a[n, c] = (1 − ε) · w[targets[n]] · [c = targets[n]] + ε / C · w[c],  D = Σ_n w[targets[n]]
/// probabilities:  a[n, c] = ((1 − ε) · targets[n, c] + ε / C) · w[c],                   D = N
/// ```
///
/// `ε` is the label smoothing and `w` the class weights, 1 without. Probabilities are taken as they are, whether or not
/// they add up to 1, and get no gradient. Classes that all have weight 0 give NaN, as a mean over nothing.
///
/// # Shapes
/// `logits` `[N, C]`, `targets` `[N]` of `u32`, or `[N, C]` of the logits' element type; the result is a scalar.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::TargetOutOfRange`] (but on a GPU, as for [`cross_entropy`]),
/// [`Error::EmptyBatch`], [`Error::InvalidArgument`] for a label smoothing outside of `[0, 1]`.
///
/// # Source
/// `torch.nn.functional.cross_entropy(weight=..., label_smoothing=..., reduction="mean")`; proved by
/// `tests/golden/cross_entropy.safetensors`.
pub fn cross_entropy_with(logits: &Tensor, targets: &Tensor, config: &CrossEntropyConfig) -> Result<Tensor> {
    element::require_float("cross_entropy logits", logits)?;
    let (batch, num_classes) = match *logits.dims() {
        [batch, num_classes] if num_classes > 0 => (batch, num_classes),
        ref got => {
            return Err(Error::ShapeMismatch {
                op: "cross_entropy logits",
                expected: "[N, C]".to_owned(),
                got: got.to_vec(),
            });
        }
    };
    if !(0.0..=1.0).contains(&config.label_smoothing) {
        return Err(Error::InvalidArgument {
            op: OP,
            argument: "label_smoothing",
            expected: "between 0 and 1",
            got: config.label_smoothing,
        });
    }
    if let Some(weights) = &config.class_weights {
        element::require_same_dtype("cross_entropy class_weights", weights, logits)?;
        element::require_shape("cross_entropy class_weights", weights, &[num_classes])?;
    }
    let indices = match targets.rank() {
        2 => {
            element::require_same_dtype("cross_entropy targets", targets, logits)?;
            element::require_shape("cross_entropy targets", targets, &[batch, num_classes])?;
            None
        }
        _ => {
            if targets.dtype() != DType::U32 {
                return Err(Error::DTypeMismatch {
                    op: "cross_entropy targets",
                    expected: "u32".to_owned(),
                    got: targets.dtype(),
                });
            }
            element::require_shape("cross_entropy targets", targets, &[batch])?;
            #[cfg(feature = "cuda")]
            let is_seen = !(on_gpu(logits) && batch > 0);
            #[cfg(not(feature = "cuda"))]
            let is_seen = true;
            is_seen.then(|| classes(targets, num_classes)).transpose()?
        }
    };
    if batch == 0 {
        return Err(Error::EmptyBatch { op: OP });
    }
    let targets = targets.detach();
    #[cfg(feature = "cuda")]
    if on_gpu(logits) {
        let class_weights = config.class_weights.as_ref().map(Tensor::contiguous).transpose()?;
        return Ok(logits.contiguous()?.apply_op1(crate::cuda::CrossEntropy {
            targets: targets.contiguous()?,
            class_weights,
            label_smoothing: config.label_smoothing,
            kept: Default::default(),
        })?);
    }
    if !logits.device().is_cpu() {
        return Ok(composite::cross_entropy(logits, &targets, config)?);
    }
    let class_weights = match &config.class_weights {
        Some(weights) => Some(weights.to_dtype(DType::F64)?.to_vec1()?),
        None => None,
    };
    Ok(logits.contiguous()?.apply_op1(CrossEntropy {
        indices,
        targets,
        num_classes,
        label_smoothing: config.label_smoothing,
        class_weights,
    })?)
}

/// Whether the fused kernel takes the logits; it sees a target out of range itself, and makes the loss NaN.
#[cfg(feature = "cuda")]
fn on_gpu(logits: &Tensor) -> bool {
    logits.device().is_cuda() && logits.dtype() == DType::F32
}

/// The targets on the host, each below `num_classes`.
fn classes(targets: &Tensor, num_classes: usize) -> Result<Vec<u32>> {
    let classes = targets.to_vec1::<u32>()?;
    match classes
        .iter()
        .enumerate()
        .find(|(_, target)| **target as usize >= num_classes)
    {
        Some((index, target)) => Err(Error::TargetOutOfRange {
            index,
            target: *target,
            num_classes,
        }),
        None => Ok(classes),
    }
}

/// The op that candle's autograd records.
struct CrossEntropy {
    /// The classes, each below `num_classes`; without them `targets` are probabilities.
    indices: Option<Vec<u32>>,
    targets: Tensor,
    num_classes: usize,
    label_smoothing: f64,
    class_weights: Option<Vec<f64>>,
}

impl CrossEntropy {
    fn loss<'a, T>(&'a self, targets: Targets<'a, T>) -> Loss<'a, T> {
        Loss {
            targets,
            num_classes: self.num_classes,
            label_smoothing: self.label_smoothing,
            class_weights: self.class_weights.as_deref(),
        }
    }

    /// Calls `run` with the loss over the targets' elements.
    fn with_loss<T: Element, R>(&self, run: impl FnOnce(Loss<'_, T>) -> R) -> candle_core::Result<R> {
        match &self.indices {
            Some(indices) => Ok(run(self.loss(Targets::Classes(indices)))),
            None => element::with_slice::<T, _>(OP, &self.targets, |probabilities| {
                run(self.loss(Targets::Probabilities(probabilities)))
            }),
        }
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        dispatch!(OP, candle_core::backend::BackendStorage::dtype(logits), T => {
            let logits = element::slice::<T>(OP, logits, layout)?;
            let value = self.with_loss::<T, _>(|loss| loss.value(logits))?;
            Ok((T::to_cpu_storage_owned(vec![T::narrow(value)]), Shape::from(())))
        })
    }

    fn bwd(&self, logits: &Tensor, _loss: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        dispatch!(OP, grad.dtype(), T => {
            let grad = grad.to_scalar::<T>()?.widen();
            let mut dlogits = vec![T::ZERO; logits.elem_count()];
            element::with_slice::<T, _>(OP, logits, |logits| {
                self.with_loss::<T, _>(|loss| loss.backward(logits, grad, &mut dlogits))
            })??;
            Ok(Some(Tensor::from_vec(dlogits, logits.shape(), &Device::Cpu)?))
        })
    }
}

#[cfg(test)]
mod tests;
