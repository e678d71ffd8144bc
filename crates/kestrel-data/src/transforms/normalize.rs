//! `Normalize`: the mean and the standard deviation of each channel, and the table that makes them free.

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

/// What each of the 256 pixel values becomes in each channel: `ToTensor`, then `Normalize`, in `f32` as PyTorch does it.
#[derive(Clone)]
pub(super) struct Table(Box<[[f32; 256]; CHANNELS]>);

impl Table {
    pub(super) fn new(normalize: Option<Normalize>) -> Self {
        let mut table = Box::new([[0.0; 256]; CHANNELS]);
        for (channel, values) in table.iter_mut().enumerate() {
            for (pixel, value) in values.iter_mut().enumerate() {
                let x = pixel as f32 / 255.0;
                *value = match normalize {
                    Some(n) => (x - n.mean[channel]) / n.std[channel],
                    None => x,
                };
            }
        }
        Self(table)
    }

    /// The 256 values of one channel.
    pub(super) fn channel(&self, channel: usize) -> &[f32; 256] {
        &self.0[channel]
    }
}
