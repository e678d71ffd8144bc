//! `RandomHorizontalFlip`: mirrors an image left to right, with a probability.

use kestrel_kernels::random::KeyedRng;
use serde::{Deserialize, Serialize};

use super::{Draws, Transform, TransformSpec};
use crate::error::{Error, Result};
use crate::pixels::{Axes, Canvas, Image};

/// Mirrors an image left to right with probability `p`.
///
/// # Source
/// `torchvision.transforms.RandomHorizontalFlip`: flips if `u < p`, with `u` uniform in `[0, 1)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomHorizontalFlip {
    p: f32,
}

impl RandomHorizontalFlip {
    /// Flips with probability `p`.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] unless `0 <= p <= 1`.
    pub fn new(p: f32) -> Result<Self> {
        if !(0.0..=1.0).contains(&p) {
            return Err(Error::InvalidParameter {
                name: "RandomHorizontalFlip p",
                expected: "a probability",
                got: p.to_string(),
            });
        }
        Ok(Self { p })
    }

    /// The probability of a flip.
    pub fn p(&self) -> f32 {
        self.p
    }

    fn draw(&self, canvas: &mut impl Canvas, rng: &mut KeyedRng) {
        if rng.uniform() < self.p {
            canvas.hflip();
        }
    }
}

impl Transform for RandomHorizontalFlip {
    fn apply(&self, image: &mut Image<'_>, rng: &mut KeyedRng) -> Result<()> {
        self.draw(image, rng);
        Ok(())
    }

    fn place(&self, axes: &mut Axes, draws: Draws) -> Option<Result<()>> {
        self.draw(axes, &mut draws.rng());
        Some(Ok(()))
    }

    fn name(&self) -> &'static str {
        "RandomHorizontalFlip"
    }

    fn spec(&self) -> TransformSpec {
        TransformSpec::RandomHorizontalFlip(*self)
    }
}
