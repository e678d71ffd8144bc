//! Architectures by name, as they stand in a configuration and in a weight file.

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use crate::{Cnn, CnnConfig, Model, Result};

/// Which network, and its shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "architecture", rename_all = "kebab-case")]
pub enum ModelConfig {
    /// The CIFAR CNN.
    Cnn(CnnConfig),
}

impl ModelConfig {
    /// Builds the network with initial values drawn from `seed`.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`] for a configuration that makes no network.
    pub fn build(&self, seed: u64, dtype: DType, device: &Device) -> Result<Box<dyn Model>> {
        match self {
            ModelConfig::Cnn(config) => Ok(Box::new(Cnn::new(config.clone(), seed, dtype, device)?)),
        }
    }

    /// The architecture's name.
    pub fn name(&self) -> &'static str {
        match self {
            ModelConfig::Cnn(_) => "cnn",
        }
    }

    /// How many classes the network tells apart.
    pub fn num_classes(&self) -> usize {
        match self {
            ModelConfig::Cnn(config) => config.num_classes,
        }
    }

    /// Side of the square images that the network takes, in pixels.
    pub fn image_size(&self) -> usize {
        match self {
            ModelConfig::Cnn(config) => config.image_size,
        }
    }
}
