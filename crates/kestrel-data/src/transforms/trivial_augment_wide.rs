//! `TrivialAugmentWide`: one random operation of random strength.

use kestrel_kernels::random::KeyedRng;
use serde::{Deserialize, Serialize};

use super::{AugmentOp, AugmentSpace, Transform, TransformSpec};
use crate::error::{Error, Result};
use crate::pixels::{CHANNELS, Image};

/// Applies one operation drawn from [`AugmentOp::ALL`] with one of `num_magnitude_bins` magnitudes.
///
/// # Source
/// Müller and Hutter 2021; `torchvision.transforms.TrivialAugmentWide` on a PIL image with nearest neighbours, operation by
/// operation (`tests/golden/augment.safetensors`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrivialAugmentWide {
    /// Number of magnitudes.
    pub num_magnitude_bins: usize,
    /// Colour of pixels from outside of the image.
    pub fill: [u8; CHANNELS],
}

impl Default for TrivialAugmentWide {
    fn default() -> Self {
        Self {
            num_magnitude_bins: 31,
            fill: [0; CHANNELS],
        }
    }
}

impl TrivialAugmentWide {
    pub(super) fn check(&self) -> Result<()> {
        if self.num_magnitude_bins >= 2 {
            return Ok(());
        }
        Err(Error::InvalidParameter {
            name: "TrivialAugmentWide num_magnitude_bins",
            expected: "at least 2",
            got: self.num_magnitude_bins.to_string(),
        })
    }
}

impl Transform for TrivialAugmentWide {
    fn apply(&self, image: &mut Image<'_>, rng: &mut KeyedRng) -> Result<()> {
        self.check()?;
        let size = (image.height(), image.width());
        let op = AugmentOp::ALL[rng.below(AugmentOp::ALL.len() as u64) as usize];
        let bin = rng.below(self.num_magnitude_bins as u64) as usize;
        let magnitude = op.magnitude(AugmentSpace::TrivialWide, bin, self.num_magnitude_bins, size);
        let negative = op.is_signed() && rng.below(2) == 1;
        op.apply(image, if negative { -magnitude } else { magnitude }, self.fill)
    }

    fn name(&self) -> &'static str {
        "TrivialAugmentWide"
    }

    fn spec(&self) -> TransformSpec {
        TransformSpec::TrivialAugmentWide(*self)
    }
}
