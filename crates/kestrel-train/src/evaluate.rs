//! Loss and accuracy of a model on a data set.

use candle_core::{D, DType, Device};
use kestrel_data::loader::DataLoader;
use kestrel_kernels::cross_entropy;
use kestrel_models::{Mode, Model};

use crate::metrics::{ConfusionMatrix, Mean, argmax};
use crate::tta::Tta;
use crate::{Error, Result};

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Cross-entropy averaged over batches, as the reference program does.
    pub loss: f64,
    /// Targets against predictions.
    pub confusion: ConfusionMatrix,
}

impl Evaluation {
    /// Accuracy over all images, in `[0, 1]`.
    pub fn accuracy(&self) -> f64 {
        self.confusion.accuracy()
    }
}

/// Runs a model over a loader in evaluation mode. `on_batch(done, total)` is called after each batch.
///
/// # Errors
/// Where the loader or the model fails, or `on_batch` does.
pub fn evaluate(
    model: &dyn Model,
    loader: &DataLoader,
    on_batch: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Evaluation> {
    evaluate_with(model, loader, Tta::None, on_batch)
}

/// [`evaluate()`] with test-time augmentation: loss and predictions are those of the logits averaged over views.
///
/// # Errors
/// As [`evaluate()`].
pub fn evaluate_with(
    model: &dyn Model,
    loader: &DataLoader,
    tta: Tta,
    on_batch: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Evaluation> {
    let span = tracing::info_span!("evaluate");
    let _guard = span.enter();
    let total = loader.num_batches();
    if total == 0 {
        return Err(Error::EmptySplit { split: "evaluation" });
    }
    let mut loss = Mean::default();
    let mut confusion = ConfusionMatrix::new(model.num_classes());
    for (done, batch) in loader.epoch(0).enumerate() {
        let batch = batch?;
        let logits = tta.logits(model, &batch.images)?;
        loss.add(scalar(&cross_entropy(&logits, &batch.targets)?)?);
        let targets = batch.targets.to_device(&Device::Cpu)?.to_vec1::<u32>()?;
        confusion.add(&argmax(&logits)?, &targets);
        on_batch(done + 1, total)?;
    }
    Ok(Evaluation {
        loss: loss.value(),
        confusion,
    })
}

/// The class probabilities (softmax of the logits) of a batch of normalised images.
///
/// # Shapes
/// `[N, 3, H, W]` → N rows of `num_classes` numbers that sum to 1.
///
/// # Errors
/// Where the model fails.
pub fn predict_probabilities(model: &dyn Model, images: &candle_core::Tensor) -> Result<Vec<Vec<f32>>> {
    let logits = model.forward(images, Mode::Eval)?.detach();
    let probabilities = candle_nn::ops::softmax(&logits, D::Minus1)?;
    Ok(probabilities
        .to_dtype(DType::F32)?
        .to_device(&Device::Cpu)?
        .to_vec2::<f32>()?)
}

/// The value of a tensor of one element.
pub(crate) fn scalar(tensor: &candle_core::Tensor) -> Result<f64> {
    Ok(tensor.to_dtype(DType::F64)?.to_scalar::<f64>()?)
}
