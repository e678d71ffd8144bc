//! `RandomCrop`: pads an image, then cuts a square out of it at random.

use kestrel_kernels::random::KeyedRng;
use serde::{Deserialize, Serialize};

use super::{Transform, TransformSpec};
use crate::error::{Error, Result};
use crate::pixels::{CHANNELS, Image};

/// What the pixels of a padding are: torchvision's `padding_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaddingMode {
    /// One colour.
    #[default]
    Constant,
    /// The pixel at the edge, again and again.
    Edge,
    /// The image mirrored at its outermost pixels, which are not repeated.
    Reflect,
    /// The image mirrored at its edge, so that the outermost pixels come twice.
    Symmetric,
}

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
        if self.padding > 0 && !(is_black(&self.fill) && is_constant(&self.padding_mode)) {
            self.pad(image)?;
        } else {
            // Black padding is no pixels at all until the batch is written.
            image.pad(self.padding);
        }
        image.crop(top, left, self.size, self.size)
    }

    /// Pads with pixels.
    fn pad(&self, image: &mut Image<'_>) -> Result<()> {
        let (height, width) = (image.height(), image.width());
        let (padded_height, padded_width) = (height + 2 * self.padding, width + 2 * self.padding);
        let columns: Vec<Option<usize>> = (0..padded_width).map(|x| self.source(x, width)).collect();
        let mut out = self.fill.repeat(padded_height * padded_width);
        {
            let pixels = image.pixels();
            let (pixels, _) = pixels.as_chunks::<CHANNELS>();
            let (out, _) = out.as_chunks_mut::<CHANNELS>();
            for (y, row) in out.chunks_exact_mut(padded_width.max(1)).enumerate() {
                let Some(y) = self.source(y, height) else { continue };
                for (pixel, x) in row.iter_mut().zip(&columns) {
                    if let Some(x) = x {
                        *pixel = pixels[y * width + x];
                    }
                }
            }
        }
        image.replace(out, padded_height, padded_width)
    }

    /// Which of `size` pixels stands at `position` of the padded line; none for the colour.
    fn source(&self, position: usize, size: usize) -> Option<usize> {
        let last = size.checked_sub(1)? as isize;
        let at = position as isize - self.padding as isize;
        if (0..=last).contains(&at) {
            return Some(at as usize);
        }
        match self.padding_mode {
            PaddingMode::Constant => None,
            PaddingMode::Edge => Some(at.clamp(0, last) as usize),
            // There and back again, without and with the outermost pixel twice.
            PaddingMode::Reflect if last == 0 => Some(0),
            PaddingMode::Reflect => {
                let at = at.rem_euclid(2 * last);
                Some(at.min(2 * last - at) as usize)
            }
            PaddingMode::Symmetric => {
                let at = at.rem_euclid(2 * last + 2);
                Some(at.min(2 * last + 1 - at) as usize)
            }
        }
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
