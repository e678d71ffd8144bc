//! `RandAugment`: a few random operations of one strength.

use kestrel_kernels::random::KeyedRng;
use serde::{Deserialize, Serialize};

use super::{AugmentOp, AugmentSpace, Transform, TransformSpec};
use crate::error::{Error, Result};
use crate::pixels::{CHANNELS, Image};

/// Applies `num_ops` operations drawn from [`AugmentOp::ALL`], all with magnitude number `magnitude` of
/// `num_magnitude_bins`.
///
/// # Source
/// Cubuk et al. 2020; `torchvision.transforms.RandAugment` on a PIL image with nearest neighbours, operation by operation
/// (`tests/golden/augment.safetensors`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandAugment {
    /// Operations applied one after another.
    pub num_ops: usize,
    /// Which magnitude, from 0 on.
    pub magnitude: usize,
    /// Number of magnitudes.
    pub num_magnitude_bins: usize,
    /// Colour of pixels from outside of the image.
    pub fill: [u8; CHANNELS],
}

impl Default for RandAugment {
    fn default() -> Self {
        Self {
            num_ops: 2,
            magnitude: 9,
            num_magnitude_bins: 31,
            fill: [0; CHANNELS],
        }
    }
}

impl RandAugment {
    pub(super) fn check(&self) -> Result<()> {
        if self.magnitude < self.num_magnitude_bins && self.num_magnitude_bins >= 2 && self.num_ops <= 100 {
            return Ok(());
        }
        Err(Error::InvalidParameter {
            name: "RandAugment",
            expected: "at most 100 operations, at least 2 bins, and a magnitude below their number",
            got: format!("{self:?}"),
        })
    }
}

impl Transform for RandAugment {
    fn apply(&self, image: &mut Image<'_>, rng: &mut KeyedRng) -> Result<()> {
        self.check()?;
        let size = (image.height(), image.width());
        for _ in 0..self.num_ops {
            let op = AugmentOp::ALL[rng.below(AugmentOp::ALL.len() as u64) as usize];
            let magnitude = op.magnitude(AugmentSpace::Rand, self.magnitude, self.num_magnitude_bins, size);
            let negative = op.is_signed() && rng.below(2) == 1;
            op.apply(image, if negative { -magnitude } else { magnitude }, self.fill)?;
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        "RandAugment"
    }

    fn spec(&self) -> TransformSpec {
        TransformSpec::RandAugment(*self)
    }
}
