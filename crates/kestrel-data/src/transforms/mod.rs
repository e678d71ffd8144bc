//! Transforms with torchvision's names and semantics, run as one pass over an image's pixels.
//!
//! A [`Compose`] is a list of pixel transforms, then [`ToTensor`](TransformSpec::ToTensor), then perhaps [`Normalize`]: what
//! `torchvision.transforms.Compose` is to the reference trainers. Geometry only moves the window of an
//! [`Image`], so a pipeline of flip, crop and normalise reads each pixel once, as 8 bits, and writes
//! it once, as `f32`, into the batch.
//!
//! ```
//! use kestrel_data::transforms::{Compose, Normalize, RandomCrop, RandomHorizontalFlip};
//!
//! let train = Compose::new()
//!     .then(RandomHorizontalFlip::new(0.5)?)
//!     .then(RandomCrop::new(32).padding(4))
//!     .normalize(Normalize::new([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])?);
//! # Ok::<(), kestrel_data::Error>(())
//! ```

mod center_crop;
mod compose;
mod key;
mod normalize;
mod parameters;
pub mod presets;
mod random_crop;
mod random_horizontal_flip;
mod random_resized_crop;
mod resample;
mod resize;
mod spec;

use std::fmt::Debug;

use kestrel_kernels::random::KeyedRng;

use crate::error::Result;
use crate::pixels::{Image, Region};

pub use center_crop::CenterCrop;
pub use compose::Compose;
pub use key::SampleKey;
pub use normalize::Normalize;
pub use parameters::{Factor, InterpolationMode, Size};
pub use random_crop::RandomCrop;
pub use random_horizontal_flip::RandomHorizontalFlip;
pub use random_resized_crop::RandomResizedCrop;
pub use resize::Resize;
pub use spec::TransformSpec;

/// A step that changes an image's geometry or its 8-bit pixels.
pub trait Transform: Debug + Send + Sync {
    /// Applies the transform to one image.
    ///
    /// All randomness comes from `rng`, which is keyed by (seed, epoch, sample index, transform), so the result depends on
    /// nothing else.
    ///
    /// # Errors
    /// As the transform says; the loader adds the sample's index.
    fn apply(&self, image: &mut Image<'_>, rng: &mut KeyedRng) -> Result<()>;

    /// The part of an image of this size that [`Self::apply`] looks at when it gets a generator in the same state; none for
    /// all of it. What lies outside of it need not be decoded if the transform is the first.
    fn region(&self, _height: usize, _width: usize, _rng: &mut KeyedRng) -> Option<Region> {
        None
    }

    /// torchvision's name of the transform, or one of your own. With the transform's place among those of the same name it
    /// keys the generator that [`Self::apply`] gets.
    fn name(&self) -> &'static str;

    /// The description that a configuration and a checkpoint hold; [`TransformSpec::Custom`] for a user's own transform.
    fn spec(&self) -> TransformSpec {
        TransformSpec::Custom {
            description: format!("{self:?}"),
        }
    }
}
