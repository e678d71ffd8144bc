//! `RandomCrop`: pads an image with black, then cuts a square out of it at random.

use kestrel_kernels::random::KeyedRng;
use serde::{Deserialize, Serialize};

use super::{Transform, TransformSpec};
use crate::error::{Error, Result};
use crate::pixels::Image;

/// Adds `padding` black pixels on each side, then keeps `size` x `size` pixels at a random place.
///
/// # Source
/// `torchvision.transforms.RandomCrop(size, padding=padding, fill=0)`: the top and the left are uniform over the places
/// where the crop fits, and nothing is drawn where there is one place only. Proved by `tests/golden/geometry.safetensors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomCrop {
    size: usize,
    #[serde(default)]
    padding: usize,
}

impl RandomCrop {
    /// Crops `size` x `size` pixels, without padding.
    pub fn new(size: usize) -> Self {
        Self { size, padding: 0 }
    }

    /// Adds `padding` black pixels on each side before cropping.
    pub fn padding(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// Pads the image and crops it at (`top`, `left`) of the padded image.
    ///
    /// # Errors
    /// [`Error::CropTooLarge`] if the crop does not fit there.
    pub fn apply_at(&self, image: &mut Image<'_>, top: usize, left: usize) -> Result<()> {
        image.pad(self.padding);
        image.crop(top, left, self.size, self.size)
    }

    pub(super) fn check(&self) -> Result<()> {
        // Past 16 bits a side, no image can be.
        let expected = "a size of 1 to 65535 and a padding of at most 65535";
        if self.size == 0 || self.size > 65_535 || self.padding > 65_535 {
            let got = format!("size {}, padding {}", self.size, self.padding);
            return Err(Error::InvalidParameter {
                name: "RandomCrop",
                expected,
                got,
            });
        }
        Ok(())
    }
}

impl Transform for RandomCrop {
    fn apply(&self, image: &mut Image<'_>, rng: &mut KeyedRng) -> Result<()> {
        self.check()?;
        let padded = (image.height() + 2 * self.padding, image.width() + 2 * self.padding);
        let (Some(rows), Some(columns)) = (padded.0.checked_sub(self.size), padded.1.checked_sub(self.size)) else {
            return Err(Error::CropTooLarge {
                crop: (self.size, self.size),
                image: padded,
            });
        };
        let (top, left) = if (rows, columns) == (0, 0) {
            (0, 0)
        } else {
            (
                rng.below(rows as u64 + 1) as usize,
                rng.below(columns as u64 + 1) as usize,
            )
        };
        self.apply_at(image, top, left)
    }

    fn name(&self) -> &'static str {
        "RandomCrop"
    }

    fn spec(&self) -> TransformSpec {
        TransformSpec::RandomCrop(*self)
    }
}
