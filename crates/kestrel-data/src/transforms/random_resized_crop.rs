//! `RandomResizedCrop`: a part of an image, of random area and ratio, resized to a square.

use kestrel_kernels::random::KeyedRng;
use serde::{Deserialize, Serialize};

use super::parameters::{check_positive, check_range, check_sides, log_uniform, rectangle, uniform};
use super::{InterpolationMode, Transform, TransformSpec, resample};
use crate::error::Result;
use crate::pixels::{Image, Region};

/// Crops a part of an image whose share of the area is drawn from `scale` and whose ratio of width to height from `ratio`, and
/// resizes it to `size` x `size` pixels.
///
/// # Source
/// `torchvision.transforms.RandomResizedCrop(size, scale, ratio, interpolation)` on a PIL image; the resizing within 1 of 255
/// (`tests/golden/resize.safetensors`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomResizedCrop {
    size: usize,
    #[serde(default = "default_scale")]
    scale: [f32; 2],
    #[serde(default = "default_ratio")]
    ratio: [f32; 2],
    #[serde(default)]
    interpolation: InterpolationMode,
}

fn default_scale() -> [f32; 2] {
    [0.08, 1.0]
}

fn default_ratio() -> [f32; 2] {
    [3.0 / 4.0, 4.0 / 3.0]
}

/// How often a part is drawn before the middle of the image is taken.
const TRIES: usize = 10;

impl RandomResizedCrop {
    /// Crops 8 % to 100 % of the area, with ratios from 3/4 to 4/3, and resizes to `size` x `size` pixels.
    pub fn new(size: usize) -> Self {
        Self {
            size,
            scale: default_scale(),
            ratio: default_ratio(),
            interpolation: InterpolationMode::default(),
        }
    }

    /// Draws the share of the area from `[min, max]`.
    pub fn scale(self, scale: [f32; 2]) -> Self {
        Self { scale, ..self }
    }

    /// Draws the ratio of width to height from `[min, max]`, evenly on a logarithmic scale.
    pub fn ratio(self, ratio: [f32; 2]) -> Self {
        Self { ratio, ..self }
    }

    /// Interpolates in another way.
    pub fn interpolation(self, interpolation: InterpolationMode) -> Self {
        Self { interpolation, ..self }
    }

    /// Draws the part of an image of `height` x `width` pixels.
    pub fn draw(&self, height: usize, width: usize, rng: &mut KeyedRng) -> Region {
        let area = height as f64 * width as f64;
        for _ in 0..TRIES {
            let target = area * uniform(rng, self.scale);
            let (h, w) = rectangle(target, log_uniform(rng, self.ratio));
            if (1..=height).contains(&h) && (1..=width).contains(&w) {
                let top = rng.below((height - h) as u64 + 1) as usize;
                let left = rng.below((width - w) as u64 + 1) as usize;
                return Region {
                    top,
                    left,
                    height: h,
                    width: w,
                };
            }
        }
        self.middle(height, width)
    }

    /// The largest part in the middle whose ratio is allowed: what is taken when no draw fits.
    pub fn middle(&self, height: usize, width: usize) -> Region {
        let [min, max] = self.ratio.map(f64::from);
        let ratio = width as f64 / height as f64;
        let (h, w) = if ratio < min {
            ((width as f64 / min).round_ties_even() as usize, width)
        } else if ratio > max {
            (height, (height as f64 * max).round_ties_even() as usize)
        } else {
            (height, width)
        };
        let (h, w) = (h.clamp(1, height), w.clamp(1, width));
        Region {
            top: (height - h) / 2,
            left: (width - w) / 2,
            height: h,
            width: w,
        }
    }

    /// Crops this part and resizes it.
    ///
    /// # Errors
    /// [`Error::CropTooLarge`](crate::Error::CropTooLarge) if it is not within the image.
    pub fn apply_at(&self, image: &mut Image<'_>, part: Region) -> Result<()> {
        image.crop(part.top, part.left, part.height, part.width)?;
        resample::resize(image, self.size, self.size, self.interpolation)
    }

    pub(super) fn check(&self) -> Result<()> {
        check_sides("RandomResizedCrop size", &[self.size])?;
        check_range("RandomResizedCrop scale", self.scale, 0.0, f32::MAX)?;
        check_range("RandomResizedCrop ratio", self.ratio, 0.0, f32::MAX)?;
        check_positive("RandomResizedCrop scale", self.scale[1])?;
        check_positive("RandomResizedCrop ratio", self.ratio[0])
    }
}

impl Transform for RandomResizedCrop {
    fn apply(&self, image: &mut Image<'_>, rng: &mut KeyedRng) -> Result<()> {
        self.check()?;
        let part = self.draw(image.height(), image.width(), rng);
        self.apply_at(image, part)
    }

    fn region(&self, height: usize, width: usize, rng: &mut KeyedRng) -> Option<Region> {
        self.check().ok().map(|()| self.draw(height, width, rng))
    }

    fn name(&self) -> &'static str {
        "RandomResizedCrop"
    }

    fn spec(&self) -> TransformSpec {
        TransformSpec::RandomResizedCrop(*self)
    }
}
