//! `Resize`: another size, by antialiased resampling.

use kestrel_kernels::random::KeyedRng;
use serde::{Deserialize, Serialize};

use super::parameters::check_sides;
use super::{Draws, InterpolationMode, Size, Transform, TransformSpec, View, resample};
use crate::error::Result;
use crate::pixels::{Axes, Image};

/// Resizes to a shorter side, or to a height and a width.
///
/// # Source
/// `torchvision.transforms.Resize(size, interpolation)` on a PIL image, which is antialiased; within 1 of 255
/// (`tests/golden/resize.safetensors`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    size: Size,
    #[serde(default)]
    interpolation: InterpolationMode,
}

impl Resize {
    /// Resizes so that the shorter side is `size` pixels long.
    pub fn new(size: usize) -> Self {
        Self {
            size: Size::ShorterSide(size),
            interpolation: InterpolationMode::default(),
        }
    }

    /// Resizes to `height` x `width` pixels.
    pub fn exact(height: usize, width: usize) -> Self {
        Self {
            size: Size::Exact([height, width]),
            interpolation: InterpolationMode::default(),
        }
    }

    /// Interpolates in another way.
    pub fn interpolation(self, interpolation: InterpolationMode) -> Self {
        Self { interpolation, ..self }
    }

    /// Height and width that an image of `height` x `width` pixels gets; the longer side is rounded down.
    pub fn output_size(&self, height: usize, width: usize) -> (usize, usize) {
        match self.size {
            Size::Exact([height, width]) => (height, width),
            Size::ShorterSide(size) => {
                let (short, long) = (height.min(width), height.max(width));
                // As Python: the product is exact, the quotient is a float that is cut off.
                let long = (size as f64 * long as f64 / short.max(1) as f64) as usize;
                if height <= width { (size, long) } else { (long, size) }
            }
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.size {
            Size::ShorterSide(size) => check_sides("Resize size", &[size]),
            Size::Exact(sides) => check_sides("Resize size", &sides),
        }
    }
}

impl Transform for Resize {
    fn apply(&self, image: &mut Image<'_>, _rng: &mut KeyedRng) -> Result<()> {
        self.check()?;
        let (height, width) = self.output_size(image.height(), image.width());
        check_sides("Resize's longer side", &[height, width])?;
        resample::resize(image, height, width, self.interpolation)
    }

    /// Only where there is nothing to do, as for images that have the size already.
    fn place(&self, axes: &mut Axes, _draws: Draws) -> Option<Result<()>> {
        let (height, width) = axes.size();
        (self.output_size(height, width) == (height, width)).then(|| self.check())
    }

    fn view(&self, view: View) -> View {
        let (height, width) = self.output_size(view.pixels.0, view.pixels.1);
        view.resized(height, width)
    }

    fn name(&self) -> &'static str {
        "Resize"
    }

    fn spec(&self) -> TransformSpec {
        TransformSpec::Resize(*self)
    }
}
