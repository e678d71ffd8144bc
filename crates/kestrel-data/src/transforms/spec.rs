//! The description of a pipeline, as a configuration file and a checkpoint hold it.

use serde::{Deserialize, Serialize};

use super::{CenterCrop, Normalize, RandomCrop, RandomHorizontalFlip, RandomResizedCrop, Resize};

/// One step of a pipeline, by torchvision's name.
///
/// In TOML: `[{ name = "RandomHorizontalFlip", p = 0.5 }, { name = "ToTensor" }]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name")]
#[non_exhaustive]
pub enum TransformSpec {
    /// Mirrors an image left to right, with a probability.
    RandomHorizontalFlip(RandomHorizontalFlip),
    /// Pads with black and crops at random.
    RandomCrop(RandomCrop),
    /// Resizes.
    Resize(Resize),
    /// Keeps the middle.
    CenterCrop(CenterCrop),
    /// Crops at random and resizes.
    RandomResizedCrop(RandomResizedCrop),
    /// From 8-bit `[H, W, 3]` to `f32` `[3, H, W]` in `[0, 1]`.
    ToTensor,
    /// Subtracts the mean and divides by the standard deviation.
    Normalize(Normalize),
    /// A transform from outside this crate; it is described, but cannot be built from its description.
    Custom {
        /// What the transform says of itself.
        description: String,
    },
}
