//! The description of a pipeline, as a configuration file and a checkpoint hold it.

use serde::{Deserialize, Serialize};

use super::{
    CenterCrop, ColorJitter, CutMix, MixUp, Normalize, RandAugment, RandomChoice, RandomCrop, RandomErasing,
    RandomHorizontalFlip, RandomResizedCrop, Resize, TrivialAugmentWide,
};

/// One step of a pipeline, by torchvision's name.
///
/// In TOML: `[{ name = "RandomHorizontalFlip", p = 0.5 }, { name = "ToTensor" }]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name")]
#[non_exhaustive]
pub enum TransformSpec {
    /// Mirrors an image left to right, with a probability.
    RandomHorizontalFlip(RandomHorizontalFlip),
    /// Mirrors an image left to right in every second epoch.
    AlternatingHorizontalFlip,
    /// Pads and crops at random.
    RandomCrop(RandomCrop),
    /// Resizes.
    Resize(Resize),
    /// Keeps the middle.
    CenterCrop(CenterCrop),
    /// Crops at random and resizes.
    RandomResizedCrop(RandomResizedCrop),
    /// Changes brightness, contrast, saturation and hue.
    ColorJitter(ColorJitter),
    /// Applies random operations of one strength.
    RandAugment(RandAugment),
    /// Applies one random operation of random strength.
    TrivialAugmentWide(TrivialAugmentWide),
    /// From 8-bit `[H, W, 3]` to `f32` `[3, H, W]` in `[0, 1]`.
    ToTensor,
    /// Subtracts the mean and divides by the standard deviation.
    Normalize(Normalize),
    /// Overwrites a random rectangle.
    RandomErasing(RandomErasing),
    /// Mixes each image of a batch with another.
    MixUp(MixUp),
    /// Puts a part of another image into each of a batch.
    CutMix(CutMix),
    /// One of several transforms of batches.
    RandomChoice(RandomChoice),
    /// A transform from outside this crate; it is described, but cannot be built from its description.
    Custom {
        /// What the transform says of itself.
        description: String,
    },
}
