//! `MixUp` and `CutMix`: each image of a batch mixed with the one before it, and their targets with them.

use kestrel_kernels::random::KeyedRng;
use serde::{Deserialize, Serialize};

use super::parameters::check_positive;
use super::{BatchTransform, TransformSpec};
use crate::error::{Error, Result};
use crate::pixels::Region;

/// A batch as it is mixed.
///
/// Shapes: `images` `[N, C, H, W]`, `targets` `[N, K]` with a probability for each of `K` classes.
#[derive(Debug)]
pub struct Mixture<'a> {
    /// The images.
    pub images: &'a mut [f32],
    /// Their shape.
    pub shape: [usize; 4],
    /// The targets.
    pub targets: &'a mut [f32],
}

/// Mixes each image with the one before it: `lam * x[i] + (1 - lam) * x[i - 1]`, with `lam` from Beta(alpha, alpha); targets
/// likewise. The first is mixed with the last.
///
/// # Source
/// Zhang et al. 2018; `torchvision.transforms.v2.MixUp(alpha)`, on given draws bit for bit (`tests/golden/batch.safetensors`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixUp {
    #[serde(default = "one")]
    alpha: f32,
}

/// Puts a rectangle of the image before into each image; targets are mixed by the rectangle's share of the area. The share that
/// is kept, `lam`, is drawn from Beta(alpha, alpha), and the place evenly.
///
/// # Source
/// Yun et al. 2019; `torchvision.transforms.v2.CutMix(alpha)`, on given draws bit for bit (`tests/golden/batch.safetensors`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutMix {
    #[serde(default = "one")]
    alpha: f32,
}

fn one() -> f32 {
    1.0
}

/// Applies one of several batch transforms, each as likely as the others.
///
/// # Source
/// `torchvision.transforms.v2.RandomChoice`, as torchvision's reference trainer has it for MixUp and CutMix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomChoice {
    transforms: Vec<MixSpec>,
}

/// A transform that [`RandomChoice`] can choose.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name")]
pub enum MixSpec {
    /// [`MixUp`].
    MixUp(MixUp),
    /// [`CutMix`].
    CutMix(CutMix),
}

impl MixUp {
    /// Draws from Beta(alpha, alpha).
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] unless `alpha` is above 0.
    pub fn new(alpha: f32) -> Result<Self> {
        let this = Self { alpha };
        this.check().map(|()| this)
    }

    /// Mixes with this `lam`.
    pub fn mix(batch: &mut Mixture<'_>, lam: f64) {
        mix_rows(batch.images, batch.shape[0], lam);
        mix_rows(batch.targets, batch.shape[0], lam);
    }

    pub(super) fn check(&self) -> Result<()> {
        check_positive("MixUp alpha", self.alpha)
    }
}

impl CutMix {
    /// Draws from Beta(alpha, alpha).
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] unless `alpha` is above 0.
    pub fn new(alpha: f32) -> Result<Self> {
        let this = Self { alpha };
        this.check().map(|()| this)
    }

    /// The rectangle around row `y` and column `x` that leaves a share of `lam`, cut off at the image's edges.
    pub fn rectangle(lam: f64, (y, x): (usize, usize), (height, width): (usize, usize)) -> Region {
        let half = 0.5 * (1.0 - lam).max(0.0).sqrt();
        let (half_height, half_width) = ((half * height as f64) as usize, (half * width as f64) as usize);
        let (top, left) = (y.saturating_sub(half_height), x.saturating_sub(half_width));
        Region {
            top,
            left,
            height: (y + half_height).min(height).saturating_sub(top),
            width: (x + half_width).min(width).saturating_sub(left),
        }
    }

    /// Puts this rectangle of the image before into each image.
    pub fn cut(batch: &mut Mixture<'_>, part: Region) {
        let [n, channels, height, width] = batch.shape;
        let image = channels * height * width;
        if n == 0 || image == 0 {
            return;
        }
        let last = batch.images[(n - 1) * image..].to_vec();
        for i in (0..n).rev() {
            let (before, this) = batch.images.split_at_mut(i * image);
            let previous = if i == 0 { &last } else { &before[(i - 1) * image..] };
            for channel in 0..channels {
                for y in part.top..part.top + part.height {
                    let at = (channel * height + y) * width + part.left;
                    this[at..at + part.width].copy_from_slice(&previous[at..at + part.width]);
                }
            }
        }
        let lam = 1.0 - (part.height * part.width) as f64 / (height * width) as f64;
        mix_rows(batch.targets, n, lam);
    }

    pub(super) fn check(&self) -> Result<()> {
        check_positive("CutMix alpha", self.alpha)
    }
}

impl BatchTransform for MixUp {
    fn apply(&self, batch: &mut Mixture<'_>, rng: &mut KeyedRng) -> Result<()> {
        self.check()?;
        Self::mix(batch, beta(self.alpha, rng));
        Ok(())
    }

    fn name(&self) -> &'static str {
        "MixUp"
    }

    fn spec(&self) -> TransformSpec {
        TransformSpec::MixUp(*self)
    }
}

impl BatchTransform for CutMix {
    fn apply(&self, batch: &mut Mixture<'_>, rng: &mut KeyedRng) -> Result<()> {
        self.check()?;
        let [_, _, height, width] = batch.shape;
        let lam = beta(self.alpha, rng);
        let (x, y) = (rng.below(width as u64) as usize, rng.below(height as u64) as usize);
        Self::cut(batch, Self::rectangle(lam, (y, x), (height, width)));
        Ok(())
    }

    fn name(&self) -> &'static str {
        "CutMix"
    }

    fn spec(&self) -> TransformSpec {
        TransformSpec::CutMix(*self)
    }
}

impl RandomChoice {
    /// Chooses among `transforms`.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if there is none, and theirs.
    pub fn new(transforms: Vec<MixSpec>) -> Result<Self> {
        let this = Self { transforms };
        this.check().map(|()| this)
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.transforms.is_empty() {
            return Err(Error::InvalidParameter {
                name: "RandomChoice transforms",
                expected: "at least one",
                got: "none".into(),
            });
        }
        self.transforms.iter().try_for_each(|transform| match transform {
            MixSpec::MixUp(mix_up) => mix_up.check(),
            MixSpec::CutMix(cut_mix) => cut_mix.check(),
        })
    }
}

impl BatchTransform for RandomChoice {
    fn apply(&self, batch: &mut Mixture<'_>, rng: &mut KeyedRng) -> Result<()> {
        self.check()?;
        match &self.transforms[rng.below(self.transforms.len() as u64) as usize] {
            MixSpec::MixUp(mix_up) => mix_up.apply(batch, rng),
            MixSpec::CutMix(cut_mix) => cut_mix.apply(batch, rng),
        }
    }

    fn name(&self) -> &'static str {
        "RandomChoice"
    }

    fn spec(&self) -> TransformSpec {
        TransformSpec::RandomChoice(self.clone())
    }
}

/// `lam * rows[i] + (1 - lam) * rows[i - 1]` for all of `n` rows, in place; each product is rounded, as PyTorch does it.
fn mix_rows(rows: &mut [f32], n: usize, lam: f64) {
    let row = rows.len() / n.max(1);
    if row == 0 {
        return;
    }
    let (kept, mixed) = (lam as f32, (1.0 - lam) as f32);
    let last = rows[(n - 1) * row..].to_vec();
    for i in (0..n).rev() {
        let (before, this) = rows.split_at_mut(i * row);
        let previous = if i == 0 { &last } else { &before[(i - 1) * row..] };
        for (value, &other) in this[..row].iter_mut().zip(previous) {
            *value = other * mixed + *value * kept;
        }
    }
}

/// A draw from Beta(alpha, alpha), as a share of two draws from Gamma(alpha).
fn beta(alpha: f32, rng: &mut KeyedRng) -> f64 {
    let (a, b) = (gamma(alpha.into(), rng), gamma(alpha.into(), rng));
    // For a tiny alpha both can be 0: then all weight is on one side.
    if a + b > 0.0 {
        a / (a + b)
    } else {
        f64::from(rng.next_u32() & 1)
    }
}

/// A draw from Gamma(shape, 1): Marsaglia and Tsang 2000.
fn gamma(shape: f64, rng: &mut KeyedRng) -> f64 {
    // In (0, 1), so that its logarithm is finite.
    let unit = |rng: &mut KeyedRng| (f64::from(rng.next_u32()) + 0.5) / 4_294_967_296.0;
    if shape < 1.0 {
        return gamma(shape + 1.0, rng) * unit(rng).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = rng.normal();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && unit(rng).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}
