//! `RandomErasing`: overwrites a random rectangle of a normalised image.

use kestrel_kernels::pixels::Erasure;
use kestrel_kernels::random::KeyedRng;
use serde::{Deserialize, Serialize};

use super::parameters::{check_positive, check_probability, check_range, log_uniform, rectangle, uniform};
use super::{TensorTransform, TransformSpec};
use crate::error::Result;
use crate::pixels::{CHANNELS, Region};

/// What a rectangle is overwritten with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ErasingValue {
    /// One value.
    Value(f32),
    /// A value a channel.
    Channels([f32; CHANNELS]),
    /// Standard normal noise: `"random"`.
    Noise(Noise),
}

/// The word for noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Noise {
    /// Standard normal noise.
    #[serde(rename = "random")]
    Random,
}

/// With probability `p`, overwrites a rectangle whose share of the area is drawn from `scale` and whose ratio of height to width
/// from `ratio`.
///
/// # Source
/// Zhong et al. 2020; `torchvision.transforms.RandomErasing(p, scale, ratio, value)`, on given draws bit for bit
/// (`tests/golden/batch.safetensors`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomErasing {
    /// Probability that anything is erased.
    pub p: f32,
    /// Range of the rectangle's share of the area.
    pub scale: [f32; 2],
    /// Range of the rectangle's ratio.
    pub ratio: [f32; 2],
    /// What is written.
    pub value: ErasingValue,
}

impl Default for RandomErasing {
    fn default() -> Self {
        Self {
            p: 0.5,
            scale: [0.02, 0.33],
            ratio: [0.3, 3.3],
            value: ErasingValue::Value(0.0),
        }
    }
}

/// How often a rectangle is drawn before the image is left as it is.
const TRIES: usize = 10;

impl RandomErasing {
    /// Draws the rectangle; none if no draw fits.
    pub fn draw(&self, height: usize, width: usize, rng: &mut KeyedRng) -> Option<Region> {
        let area = height as f64 * width as f64;
        for _ in 0..TRIES {
            let target = area * uniform(rng, self.scale);
            // torchvision's ratio is height to width here.
            let (w, h) = rectangle(target, log_uniform(rng, self.ratio));
            if h < height && w < width {
                return Some(Region {
                    top: rng.below((height - h) as u64 + 1) as usize,
                    left: rng.below((width - w) as u64 + 1) as usize,
                    height: h,
                    width: w,
                });
            }
        }
        None
    }

    /// The rectangle of an image, if one is drawn.
    fn draw_whether(&self, (height, width): (usize, usize), rng: &mut KeyedRng) -> Result<Option<Region>> {
        self.check()?;
        let erases = rng.uniform() < self.p;
        Ok(if erases { self.draw(height, width, rng) } else { None })
    }

    /// Overwrites a rectangle of `image`, `[3, height, width]`; what of it lies outside is left out.
    pub fn erase(&self, image: &mut [f32], (height, width): (usize, usize), part: Region, rng: &mut KeyedRng) {
        for (channel, plane) in image.chunks_exact_mut((height * width).max(1)).enumerate() {
            let rows = plane.chunks_exact_mut(width.max(1)).skip(part.top).take(part.height);
            for value in rows.flat_map(|row| row.iter_mut().skip(part.left).take(part.width)) {
                *value = match self.value {
                    ErasingValue::Value(value) => value,
                    ErasingValue::Channels(values) => values[channel % CHANNELS],
                    ErasingValue::Noise(Noise::Random) => rng.normal() as f32,
                };
            }
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        check_probability("RandomErasing p", self.p)?;
        check_range("RandomErasing scale", self.scale, 0.0, 1.0)?;
        check_range("RandomErasing ratio", self.ratio, 0.0, f32::MAX)?;
        check_positive("RandomErasing ratio", self.ratio[0])
    }
}

impl TensorTransform for RandomErasing {
    fn apply(&self, image: &mut [f32], size: (usize, usize), rng: &mut KeyedRng) -> Result<()> {
        if let Some(part) = self.draw_whether(size, rng)? {
            self.erase(image, size, part, rng);
        }
        Ok(())
    }

    fn erasure(&self, size: (usize, usize), rng: &mut KeyedRng) -> Option<Result<Option<Erasure>>> {
        let values = match self.value {
            ErasingValue::Value(value) => [value; CHANNELS],
            ErasingValue::Channels(values) => values,
            ErasingValue::Noise(Noise::Random) => return None,
        };
        let part = self.draw_whether(size, rng);
        Some(part.map(|part| {
            part.map(|part| Erasure {
                top: part.top,
                left: part.left,
                height: part.height,
                width: part.width,
                values,
            })
        }))
    }

    fn name(&self) -> &'static str {
        "RandomErasing"
    }

    fn spec(&self) -> TransformSpec {
        TransformSpec::RandomErasing(*self)
    }
}
