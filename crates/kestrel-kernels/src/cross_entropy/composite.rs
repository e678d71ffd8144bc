//! Cross-entropy composed of candle's own ops, for devices without a kernel here.

use super::CrossEntropyConfig;
use candle_core::{D, Result, Tensor};

/// The same value and gradient as the kernel; the arguments are checked, and `targets` has no gradient.
pub(super) fn cross_entropy(logits: &Tensor, targets: &Tensor, config: &CrossEntropyConfig) -> Result<Tensor> {
    let (_, num_classes) = logits.dims2()?;
    let (keep, spread) = (
        1.0 - config.label_smoothing,
        config.label_smoothing / num_classes as f64,
    );
    let weights = match &config.class_weights {
        Some(weights) => weights.detach().to_device(logits.device())?,
        None => Tensor::ones(num_classes, logits.dtype(), logits.device())?,
    };
    let log_probabilities = candle_nn::ops::log_softmax(logits, D::Minus1)?;
    let mean = if targets.rank() == 1 {
        let divisor = weights.index_select(targets, 0)?.sum_all()?;
        let chosen = log_probabilities.gather(&targets.unsqueeze(1)?, 1)?.squeeze(1)?;
        let mut sum = ((chosen * weights.index_select(targets, 0)?)?.sum_all()? * keep)?;
        if config.label_smoothing > 0.0 {
            let even = log_probabilities.broadcast_mul(&weights)?.sum_all()?;
            sum = (sum + (even * spread)?)?;
        }
        (sum / divisor)?
    } else {
        let shares = ((targets * keep)? + spread)?.broadcast_mul(&weights)?;
        (log_probabilities * shares)?.sum(1)?.mean_all()?
    };
    mean.neg()
}
