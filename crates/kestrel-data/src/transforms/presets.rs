//! The pipelines of the reference trainers.

use super::{Compose, Normalize, RandomCrop, RandomHorizontalFlip};
use crate::error::Result;

/// The means of CIFAR-10's channels.
pub const CIFAR_MEAN: [f32; 3] = [0.4914, 0.4822, 0.4465];
/// The standard deviations of CIFAR-10's channels, as the widely copied recipe has them.
pub const CIFAR_STD: [f32; 3] = [0.2023, 0.1994, 0.2010];

/// CIFAR's training pipeline: `RandomHorizontalFlip(0.5)`, `RandomCrop(size, padding=4)`, `ToTensor`, `Normalize`.
///
/// `size` is the side of the images, 32 for CIFAR's own.
///
/// The padding is black before normalising, so it is `-mean / std` after.
///
/// # Errors
/// None in practice: the parameters are valid.
pub fn cifar_train(size: usize) -> Result<Compose> {
    Ok(Compose::new()
        .then(RandomHorizontalFlip::new(0.5)?)
        .then(RandomCrop::new(size).padding(4))
        .normalize(Normalize::new(CIFAR_MEAN, CIFAR_STD)?))
}

/// CIFAR's evaluation pipeline: `ToTensor`, `Normalize`.
///
/// # Errors
/// None in practice: the parameters are valid.
pub fn cifar_eval() -> Result<Compose> {
    Ok(Compose::new().normalize(Normalize::new(CIFAR_MEAN, CIFAR_STD)?))
}
