//! Loss and accuracy of a model on a data set.

use candle_core::{DType, Device};
use kestrel_kernels::cross_entropy;
use kestrel_models::Model;

use crate::metrics::{
    ClassScores, ConfusionMatrix, Logits, Mean, Reliability, argmax, class_scores, fit_temperature, top_k_accuracy,
};
use crate::trainer::told_of_memory;
use crate::tta::Tta;
use crate::{BatchSource, Error, Result};

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Cross-entropy averaged over batches, as the reference program does.
    pub loss: f64,
    /// Targets against predictions.
    pub confusion: ConfusionMatrix,
    /// The logits of every image: what the measures below are computed from.
    pub logits: Logits,
}

impl Evaluation {
    /// Accuracy over all images, in `[0, 1]`.
    pub fn accuracy(&self) -> f64 {
        self.confusion.accuracy()
    }

    /// The share of images whose class is among the five most likely, in `[0, 1]`; `None` where there are only five classes or
    /// fewer.
    pub fn top5(&self) -> Option<f64> {
        (self.logits.num_classes() > 5).then(|| top_k_accuracy(&self.logits, 5))
    }

    /// Precision, recall and F1 of each class.
    pub fn class_scores(&self) -> Vec<ClassScores> {
        class_scores(&self.confusion)
    }

    /// Confidence against accuracy, with probabilities at a temperature; see [`fit_temperature`].
    pub fn reliability(&self, temperature: f64) -> Reliability {
        Reliability::new(&self.logits, temperature)
    }

    /// The temperature at which the probabilities fit these images best. Honest only of images that were not trained on.
    pub fn temperature(&self) -> Option<f64> {
        fit_temperature(&self.logits)
    }
}

/// Runs a model over a loader in evaluation mode. `on_batch(done, total)` is called after each batch.
///
/// # Errors
/// [`Error::OutOfMemory`], and where the loader or the model fails, or `on_batch` does.
pub fn evaluate(
    model: &dyn Model,
    loader: &dyn BatchSource,
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
    loader: &dyn BatchSource,
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
    let mut all = Logits::new(model.num_classes());
    for (done, batch) in loader.epoch(0)?.enumerate() {
        let batch = batch?;
        let told = |error: Error| told_of_memory(error, batch.len());
        let logits = tta.logits(model, &batch.images).map_err(told)?;
        let read = || scalar(&cross_entropy(&logits, &batch.targets)?);
        loss.add(read().map_err(told)?);
        let targets = batch.targets.to_device(&Device::Cpu)?.to_vec1::<u32>()?;
        confusion.add(&argmax(&logits)?, &targets);
        all.add(&logits, &targets, &batch.indices)?;
        on_batch(done + 1, total)?;
    }
    Ok(Evaluation {
        loss: loss.value(),
        confusion,
        logits: all,
    })
}

/// The value of a tensor of one element.
pub(crate) fn scalar(tensor: &candle_core::Tensor) -> Result<f64> {
    Ok(tensor.to_dtype(DType::F64)?.to_scalar::<f64>()?)
}
