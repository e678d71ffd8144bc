//! `Normalize`: the mean and the standard deviation of each channel.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::pixels::CHANNELS;

/// `y = (x - mean) / std` for each channel, on `x` in `[0, 1]`.
///
/// # Source
/// `torchvision.transforms.Normalize`; with `ToTensor`, bit for bit (`tests/golden/normalize.safetensors`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalize {
    mean: [f32; CHANNELS],
    std: [f32; CHANNELS],
}

impl Normalize {
    /// Normalises red, green and blue by these means and standard deviations.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if a value is not finite or a standard deviation is 0.
    pub fn new(mean: [f32; CHANNELS], std: [f32; CHANNELS]) -> Result<Self> {
        let this = Self { mean, std };
        this.check()?;
        Ok(this)
    }

    /// The means of red, green and blue.
    pub fn mean(&self) -> [f32; CHANNELS] {
        self.mean
    }

    /// The standard deviations of red, green and blue.
    pub fn std(&self) -> [f32; CHANNELS] {
        self.std
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.mean.iter().chain(&self.std).any(|v| !v.is_finite()) || self.std.contains(&0.0) {
            let got = format!("mean {:?}, std {:?}", self.mean, self.std);
            return Err(Error::InvalidParameter {
                name: "Normalize",
                expected: "finite values and no std of 0",
                got,
            });
        }
        Ok(())
    }
}
