//! `ColorJitter`: random brightness, contrast, saturation and hue, in random order.

use kestrel_kernels::random::KeyedRng;
use serde::{Deserialize, Serialize};

use super::parameters::{check_range, uniform};
use super::{Factor, Transform, TransformSpec, color};
use crate::error::Result;
use crate::pixels::Image;

/// Changes brightness, contrast, saturation and hue by factors drawn from ranges; what has no range is left.
///
/// # Source
/// `torchvision.transforms.ColorJitter` on a PIL image, bit for bit on given draws (`tests/golden/color.safetensors`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColorJitter {
    /// Range of the brightness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brightness: Option<Factor>,
    /// Range of the contrast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contrast: Option<Factor>,
    /// Range of the saturation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saturation: Option<Factor>,
    /// Range of the turn of the hue, within -0.5 to 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hue: Option<Factor>,
}

/// What a [`ColorJitter`] has drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColorJitterDraw {
    /// The order: 0 for brightness, 1 for contrast, 2 for saturation, 3 for hue.
    pub order: [u8; 4],
    /// The factors, by those numbers.
    pub factors: [Option<f64>; 4],
}

impl ColorJitterDraw {
    /// Changes the image.
    pub fn apply(&self, image: &mut Image<'_>) {
        let changes = [
            color::adjust_brightness,
            color::adjust_contrast,
            color::adjust_saturation,
            color::adjust_hue,
        ];
        for which in self.order.map(usize::from) {
            if let (Some(change), Some(&Some(factor))) = (changes.get(which), self.factors.get(which)) {
                change(image, factor);
            }
        }
    }
}

impl ColorJitter {
    fn ranges(&self) -> [Option<[f32; 2]>; 4] {
        let scale = |factor: Option<Factor>| factor.and_then(|factor| factor.range(1.0, 0.0));
        let hue = self.hue.and_then(|factor| factor.range(0.0, f32::MIN));
        [
            scale(self.brightness),
            scale(self.contrast),
            scale(self.saturation),
            hue,
        ]
    }

    /// Draws the order and the factors.
    pub fn draw(&self, rng: &mut KeyedRng) -> ColorJitterDraw {
        let mut order = [0, 1, 2, 3];
        rng.shuffle(&mut order);
        let factors = self.ranges().map(|range| range.map(|range| uniform(rng, range)));
        ColorJitterDraw { order, factors }
    }

    pub(super) fn check(&self) -> Result<()> {
        let [brightness, contrast, saturation, hue] = self.ranges();
        for (name, range) in [
            ("ColorJitter brightness", brightness),
            ("ColorJitter contrast", contrast),
            ("ColorJitter saturation", saturation),
        ] {
            check_range(name, range.unwrap_or([1.0; 2]), 0.0, f32::MAX)?;
        }
        check_range("ColorJitter hue", hue.unwrap_or([0.0; 2]), -0.5, 0.5)
    }
}

impl Transform for ColorJitter {
    fn apply(&self, image: &mut Image<'_>, rng: &mut KeyedRng) -> Result<()> {
        self.check()?;
        self.draw(rng).apply(image);
        Ok(())
    }

    fn name(&self) -> &'static str {
        "ColorJitter"
    }

    fn spec(&self) -> TransformSpec {
        TransformSpec::ColorJitter(*self)
    }
}
