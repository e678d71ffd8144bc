//! Transforms with torchvision's names and semantics, run as one pass over an image's pixels.
//!
//! A [`Compose`] is a list of pixel transforms, then [`ToTensor`](TransformSpec::ToTensor), then perhaps [`Normalize`], then
//! transforms of the normalised image ([`RandomErasing`]), then of whole batches ([`MixUp`], [`CutMix`]): the order that
//! `torchvision.transforms.Compose` has in the reference trainers. Geometry only moves the window of an
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

mod affine;
mod alternating_horizontal_flip;
mod auto_augment;
mod center_crop;
pub mod color;
mod color_jitter;
mod compose;
mod key;
mod mix;
mod normalize;
mod parameters;
pub mod presets;
mod rand_augment;
mod random_crop;
mod random_erasing;
mod random_horizontal_flip;
mod random_resized_crop;
mod resample;
mod resize;
mod spec;
mod trivial_augment_wide;
mod view;

use std::fmt::Debug;

use crate::error::Result;
use crate::pixels::{Axes, Image, Region};

pub use alternating_horizontal_flip::AlternatingHorizontalFlip;
pub use auto_augment::{AugmentOp, AugmentSpace};
pub use center_crop::CenterCrop;
pub use color_jitter::{ColorJitter, ColorJitterDraw};
pub use compose::Compose;
pub use key::{Draws, SampleKey};
pub use mix::{CutMix, MixSpec, MixUp, Mixture, RandomChoice};
pub use normalize::Normalize;
pub use parameters::{Factor, InterpolationMode, Size};
pub use rand_augment::RandAugment;
pub use random_crop::RandomCrop;
pub use random_erasing::{ErasingValue, Noise, RandomErasing};
pub use random_horizontal_flip::RandomHorizontalFlip;
pub use random_resized_crop::RandomResizedCrop;
pub use resize::Resize;
pub use spec::TransformSpec;
pub use trivial_augment_wide::TrivialAugmentWide;
pub use view::View;

pub use crate::pixels::PaddingMode;
pub use kestrel_kernels::pixels::Erasure;
pub use kestrel_kernels::random::KeyedRng;

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

    /// Applies the transform to one image at a place in a run: [`Self::apply`] with that place's generator, unless the
    /// transform looks at the epoch or draws the same in every epoch.
    ///
    /// # Errors
    /// Those of [`Self::apply`].
    fn apply_in_run(&self, image: &mut Image<'_>, draws: Draws) -> Result<()> {
        self.apply(image, &mut draws.rng())
    }

    /// [`Self::apply_in_run`] on an image whose pixels are on a device: moves its rows and columns in the same way.
    ///
    /// None, by default, of a transform that reads or changes pixels; whatever the draws, for an image of this size.
    fn place(&self, _axes: &mut Axes, _draws: Draws) -> Option<Result<()>> {
        None
    }

    /// The part of an image of this size that [`Self::apply`] looks at when it gets a generator in the same state; none for
    /// all of it. What lies outside of it need not be decoded if the transform is the first.
    fn region(&self, _height: usize, _width: usize, _rng: &mut KeyedRng) -> Option<Region> {
        None
    }

    /// What of a picture is left after the transform, which draws nothing; all, where it does not move the image's window.
    fn view(&self, view: View) -> View {
        view
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

/// A step that changes an image after `ToTensor` and `Normalize`.
pub trait TensorTransform: Debug + Send + Sync {
    /// Applies the transform to one image, `[3, H, W]` with `size` `(H, W)`; randomness as in [`Transform::apply`].
    ///
    /// # Errors
    /// As the transform says; the loader adds the sample's index.
    fn apply(&self, image: &mut [f32], size: (usize, usize), rng: &mut KeyedRng) -> Result<()>;

    /// The rectangle that [`Self::apply`] overwrites with the same draws, if it does overwrite one, for an image that is on a
    /// device; `size` is `(H, W)`.
    ///
    /// None, by default, of a transform that does anything else, whatever the draws.
    fn erasure(&self, _size: (usize, usize), _rng: &mut KeyedRng) -> Option<Result<Option<Erasure>>> {
        None
    }

    /// The transform's name, as [`Transform::name`].
    fn name(&self) -> &'static str;

    /// The transform's description, as [`Transform::spec`].
    fn spec(&self) -> TransformSpec {
        TransformSpec::Custom {
            description: format!("{self:?}"),
        }
    }
}

/// A step that changes a whole batch, and its targets.
pub trait BatchTransform: Debug + Send + Sync {
    /// Applies the transform to a batch; `rng` is keyed by (seed, epoch, number of the batch in the epoch, transform).
    ///
    /// # Errors
    /// As the transform says.
    fn apply(&self, batch: &mut Mixture<'_>, rng: &mut KeyedRng) -> Result<()>;

    /// The transform's name, as [`Transform::name`].
    fn name(&self) -> &'static str;

    /// The transform's description, as [`Transform::spec`].
    fn spec(&self) -> TransformSpec {
        TransformSpec::Custom {
            description: format!("{self:?}"),
        }
    }
}
