//! `RandomCrop`: pads an image, then cuts a square out of it at random.

use kestrel_kernels::random::KeyedRng;
use serde::{Deserialize, Serialize};

use super::{Draws, Transform, TransformSpec};
use crate::error::{Error, Result};
use crate::pixels::{Axes, CHANNELS, Canvas, Image, Padding, PaddingMode};

/// Adds `padding` pixels on each side, then keeps `size` x `size` pixels at a random place.
///
/// # Source
/// `torchvision.transforms.RandomCrop(size, padding, fill=fill, padding_mode=padding_mode)`: the top and the left are uniform
/// over the places where the crop fits, and nothing is drawn where there is one place only. Proved by
/// `tests/golden/geometry.safetensors` and `tests/golden/padding.safetensors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomCrop {
    size: usize,
    #[serde(default)]
    padding: usize,
    #[serde(default, skip_serializing_if = "is_black")]
    fill: [u8; CHANNELS],
    #[serde(default, skip_serializing_if = "is_constant")]
    padding_mode: PaddingMode,
}

fn is_black(fill: &[u8; CHANNELS]) -> bool {
    *fill == [0; CHANNELS]
}

fn is_constant(mode: &PaddingMode) -> bool {
    *mode == PaddingMode::Constant
}

impl RandomCrop {
    /// Crops `size` x `size` pixels, without padding.
    pub fn new(size: usize) -> Self {
        Self {
            size,
            padding: 0,
            fill: [0; CHANNELS],
            padding_mode: PaddingMode::Constant,
        }
    }

    /// Adds `padding` pixels on each side before cropping; black ones, if nothing else is said.
    pub fn padding(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// Pads with this colour.
    pub fn fill(self, fill: [u8; CHANNELS]) -> Self {
        Self { fill, ..self }
    }

    /// Pads in another way.
    pub fn padding_mode(self, padding_mode: PaddingMode) -> Self {
        Self { padding_mode, ..self }
    }

    /// Pads the image and crops it at (`top`, `left`) of the padded image.
    ///
    /// # Errors
    /// [`Error::CropTooLarge`] if the crop does not fit there.
    pub fn apply_at(&self, image: &mut Image<'_>, top: usize, left: usize) -> Result<()> {
        self.cut(image, top, left)
    }

    /// [`Self::apply_at`], wherever the pixels are.
    fn cut(&self, canvas: &mut impl Canvas, top: usize, left: usize) -> Result<()> {
        canvas.pad(Padding {
            size: self.padding,
            mode: self.padding_mode,
            fill: self.fill,
        })?;
        canvas.crop(top, left, self.size, self.size)
    }

    /// Pads and crops at random.
    fn draw(&self, canvas: &mut impl Canvas, rng: &mut KeyedRng) -> Result<()> {
        self.check()?;
        let (height, width) = canvas.size();
        let padded = (height + 2 * self.padding, width + 2 * self.padding);
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
        self.cut(canvas, top, left)
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
        self.draw(image, rng)
    }

    fn place(&self, axes: &mut Axes, draws: Draws) -> Option<Result<()>> {
        Some(self.draw(axes, &mut draws.rng()))
    }

    fn name(&self) -> &'static str {
        "RandomCrop"
    }

    fn spec(&self) -> TransformSpec {
        TransformSpec::RandomCrop(*self)
    }
}
