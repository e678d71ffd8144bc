//! `CenterCrop`: the middle of an image.

use kestrel_kernels::random::KeyedRng;
use serde::{Deserialize, Serialize};

use super::parameters::check_sides;
use super::{Draws, Transform, TransformSpec, View};
use crate::error::Result;
use crate::pixels::{Axes, Image, Region};

/// Keeps `size` x `size` pixels in the middle; an image that is smaller is first padded with black.
///
/// # Source
/// `torchvision.transforms.CenterCrop(size)`, proved by `tests/golden/geometry.safetensors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CenterCrop {
    size: usize,
}

impl CenterCrop {
    /// Crops to `size` x `size` pixels.
    pub fn new(size: usize) -> Self {
        Self { size }
    }

    pub(super) fn check(&self) -> Result<()> {
        check_sides("CenterCrop size", &[self.size])
    }

    /// Pixels of padding before and after a side, and where the crop starts on the padded side.
    fn along(&self, side: usize) -> (usize, usize, usize) {
        let missing = self.size.saturating_sub(side);
        let (before, after) = (missing / 2, missing.div_ceil(2));
        // Python rounds halves to even.
        let start = ((side.max(self.size) - self.size) as f64 / 2.0).round_ties_even();
        (before, after, start as usize)
    }
}

impl Transform for CenterCrop {
    fn apply(&self, image: &mut Image<'_>, _rng: &mut KeyedRng) -> Result<()> {
        self.check()?;
        let (above, below, top) = self.along(image.height());
        let (left_of, right_of, left) = self.along(image.width());
        image.pad_sides(above, below, left_of, right_of);
        image.crop(top, left, self.size, self.size)
    }

    /// Only where the image is large enough.
    fn place(&self, axes: &mut Axes, _draws: Draws) -> Option<Result<()>> {
        let (height, width) = axes.size();
        let (top, left) = (self.along(height).2, self.along(width).2);
        let crop = |()| axes.crop(top, left, self.size, self.size);
        (self.size <= height && self.size <= width).then(|| self.check().and_then(crop))
    }

    fn region(&self, height: usize, width: usize, _rng: &mut KeyedRng) -> Option<Region> {
        let (top, left) = (self.along(height).2, self.along(width).2);
        Some(Region {
            top,
            left,
            height: self.size.min(height),
            width: self.size.min(width),
        })
    }

    fn view(&self, view: View) -> View {
        let start = |side| {
            let (before, _, start) = self.along(side);
            start as isize - before as isize
        };
        view.cropped((start(view.pixels.0), start(view.pixels.1)), self.size, self.size)
    }

    fn name(&self) -> &'static str {
        "CenterCrop"
    }

    fn spec(&self) -> TransformSpec {
        TransformSpec::CenterCrop(*self)
    }
}
