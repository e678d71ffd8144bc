//! The pipelines of the reference trainers.

use super::{CenterCrop, Compose, Normalize, RandomCrop, RandomHorizontalFlip, RandomResizedCrop, Resize};
use crate::error::Result;

/// The means of CIFAR-10's channels.
pub const CIFAR_MEAN: [f32; 3] = [0.4914, 0.4822, 0.4465];
/// The standard deviations of CIFAR-10's channels, as the widely copied recipe has them.
pub const CIFAR_STD: [f32; 3] = [0.2023, 0.1994, 0.2010];

/// The means of ImageNet's channels.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// The standard deviations of ImageNet's channels.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

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

/// ImageNet's training pipeline: `RandomResizedCrop(size)`, `RandomHorizontalFlip(0.5)`, `ToTensor`, `Normalize`.
///
/// `size` is the side of the network's input, most often 224.
///
/// # Errors
/// None in practice: the parameters are valid.
pub fn imagenet_train(size: usize) -> Result<Compose> {
    Ok(Compose::new()
        .then(RandomResizedCrop::new(size))
        .then(RandomHorizontalFlip::new(0.5)?)
        .normalize(Normalize::new(IMAGENET_MEAN, IMAGENET_STD)?))
}

/// ImageNet's evaluation pipeline: `Resize(resize)`, `CenterCrop(size)`, `ToTensor`, `Normalize`; most often 256 and 224.
///
/// # Errors
/// None in practice: the parameters are valid.
pub fn imagenet_eval(resize: usize, size: usize) -> Result<Compose> {
    Ok(Compose::new()
        .then(Resize::new(resize))
        .then(CenterCrop::new(size))
        .normalize(Normalize::new(IMAGENET_MEAN, IMAGENET_STD)?))
}
