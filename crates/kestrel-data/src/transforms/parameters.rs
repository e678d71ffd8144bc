//! Parameters that several transforms share, and the draws that they share.

use kestrel_kernels::random::KeyedRng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The most pixels along a side; no image file has more.
const MAX_SIDE: usize = 65_535;

/// How new pixels are made from old ones: torchvision's `InterpolationMode`, with antialiasing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterpolationMode {
    /// A triangle filter.
    #[default]
    Bilinear,
    /// A cubic filter with `a = -0.5`.
    Bicubic,
}

/// What `Resize` makes of an image's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    /// The shorter side becomes this; the longer follows, so that the ratio stays.
    ShorterSide(usize),
    /// Height and width, whatever the ratio.
    Exact([usize; 2]),
}

/// The range that a factor is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Factor {
    /// `[max(0, 1 - v), 1 + v]`; for a hue, `[-v, v]`.
    Around(f32),
    /// `[min, max]`.
    Between([f32; 2]),
}

impl Factor {
    /// The range around `centre`, clipped below at `least`; none if it is the centre alone, which changes nothing.
    pub(super) fn range(self, centre: f32, least: f32) -> Option<[f32; 2]> {
        let range = match self {
            Self::Around(value) => [(centre - value).max(least), centre + value],
            Self::Between(range) => range,
        };
        (range != [centre; 2]).then_some(range)
    }
}

/// Refuses sides of 0 and of more than any image has.
pub(super) fn check_sides(name: &'static str, sides: &[usize]) -> Result<()> {
    if sides.iter().all(|side| (1..=MAX_SIDE).contains(side)) {
        return Ok(());
    }
    Err(Error::InvalidParameter {
        name,
        expected: "sides of 1 to 65535 pixels",
        got: format!("{sides:?}"),
    })
}

/// Refuses what is no probability.
pub(super) fn check_probability(name: &'static str, p: f32) -> Result<()> {
    if (0.0..=1.0).contains(&p) {
        return Ok(());
    }
    Err(Error::InvalidParameter {
        name,
        expected: "a probability",
        got: p.to_string(),
    })
}

/// Refuses a range that is not `least <= min <= max <= most`.
pub(super) fn check_range(name: &'static str, [min, max]: [f32; 2], least: f32, most: f32) -> Result<()> {
    if min.is_finite() && max.is_finite() && least <= min && min <= max && max <= most {
        return Ok(());
    }
    Err(Error::InvalidParameter {
        name,
        expected: "a lower and an upper bound, in that order and within the parameter's range",
        got: format!("[{min}, {max}]"),
    })
}

/// Refuses what is not above 0.
pub(super) fn check_positive(name: &'static str, value: f32) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::InvalidParameter {
        name,
        expected: "a value above 0",
        got: value.to_string(),
    })
}

/// Uniform in `[min, max)`.
pub(super) fn uniform(rng: &mut KeyedRng, [min, max]: [f32; 2]) -> f64 {
    let unit = f64::from(rng.next_u32()) / 4_294_967_296.0;
    f64::from(min) + (f64::from(max) - f64::from(min)) * unit
}

/// Log-uniform in `[min, max)`.
pub(super) fn log_uniform(rng: &mut KeyedRng, [min, max]: [f32; 2]) -> f64 {
    uniform(rng, [min.ln(), max.ln()]).exp()
}

/// Height and width of a rectangle of this area and this ratio of width to height, rounded as Python rounds.
pub(super) fn rectangle(area: f64, ratio: f64) -> (usize, usize) {
    let height = (area / ratio).sqrt().round_ties_even();
    let width = (area * ratio).sqrt().round_ties_even();
    (height as usize, width as usize)
}
