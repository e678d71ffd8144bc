//! Architectures by name, as they stand in a configuration and in a weight file.

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use crate::{Cnn, CnnConfig, Depth, Model, ResNet, ResNetConfig, Result, WhitenedCnn, WhitenedCnnConfig};

/// Which network, and its shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "architecture", rename_all = "kebab-case")]
pub enum ModelConfig {
    /// The CIFAR CNN.
    Cnn(CnnConfig),
    /// A residual network.
    #[serde(rename = "resnet")]
    ResNet(ResNetConfig),
    /// The network that trains fast on small images.
    WhitenedCnn(WhitenedCnnConfig),
}

impl ModelConfig {
    /// The names that [`by_name`](Self::by_name) knows.
    pub const NAMES: [&'static str; 5] = ["cnn", "resnet18", "resnet34", "resnet50", "whitened-cnn"];

    /// An architecture with its usual options; `None` for a name that is not in [`NAMES`](Self::NAMES).
    pub fn by_name(name: &str, num_classes: usize) -> Option<Self> {
        let resnet = |depth| Some(ModelConfig::ResNet(ResNetConfig::new(depth, num_classes)));
        match name {
            "cnn" => Some(ModelConfig::Cnn(CnnConfig::new(num_classes))),
            "resnet18" => resnet(Depth::ResNet18),
            "resnet34" => resnet(Depth::ResNet34),
            "resnet50" => resnet(Depth::ResNet50),
            "whitened-cnn" => Some(ModelConfig::WhitenedCnn(WhitenedCnnConfig::new(num_classes))),
            _ => None,
        }
    }

    /// Whether it makes a network, which is found out without making one.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`].
    pub fn check(&self) -> Result<()> {
        match self {
            ModelConfig::Cnn(config) => config.check(),
            ModelConfig::ResNet(config) => config.check(),
            ModelConfig::WhitenedCnn(config) => config.check(),
        }
    }

    /// Builds the network with initial values drawn from `seed`.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`] for a configuration that makes no network.
    pub fn build(&self, seed: u64, dtype: DType, device: &Device) -> Result<Box<dyn Model>> {
        match self {
            ModelConfig::Cnn(config) => Ok(Box::new(Cnn::new(config.clone(), seed, dtype, device)?)),
            ModelConfig::ResNet(config) => Ok(Box::new(ResNet::new(config.clone(), seed, dtype, device)?)),
            ModelConfig::WhitenedCnn(config) => Ok(Box::new(WhitenedCnn::new(config.clone(), seed, dtype, device)?)),
        }
    }

    /// The architecture's name.
    pub fn name(&self) -> &'static str {
        match self {
            ModelConfig::Cnn(_) => "cnn",
            ModelConfig::ResNet(config) => config.depth.name(),
            ModelConfig::WhitenedCnn(_) => "whitened-cnn",
        }
    }

    /// A few lines of Python that make `model` in PyTorch, whose state dict has this network's names.
    ///
    /// They take `nn`, `OrderedDict` and `torchvision` for imported: [`weights::pytorch_snippet`](crate::weights::pytorch_snippet)
    /// does that, and loads a file.
    pub fn pytorch(&self) -> String {
        match self {
            ModelConfig::Cnn(config) => config.pytorch(),
            ModelConfig::ResNet(config) => config.pytorch(),
            ModelConfig::WhitenedCnn(config) => config.pytorch(),
        }
    }

    /// How many classes the network tells apart.
    pub fn num_classes(&self) -> usize {
        match self {
            ModelConfig::Cnn(config) => config.num_classes,
            ModelConfig::ResNet(config) => config.num_classes,
            ModelConfig::WhitenedCnn(config) => config.num_classes,
        }
    }

    /// Side of the square images that the network is trained on, in pixels; a residual network takes others too.
    pub fn image_size(&self) -> usize {
        match self {
            ModelConfig::Cnn(config) => config.image_size,
            ModelConfig::ResNet(config) => config.image_size,
            ModelConfig::WhitenedCnn(config) => config.image_size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_builds_the_network_of_that_name() {
        for name in ModelConfig::NAMES {
            let config = ModelConfig::by_name(name, 3).unwrap();
            assert_eq!((config.name(), config.num_classes()), (name, 3));
            assert!(config.check().is_ok() && ModelConfig::by_name(name, 0).unwrap().check().is_err());
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<ModelConfig>(&json).unwrap(), config, "{json}");
        }
        assert_eq!(ModelConfig::by_name("resnet19", 3), None);
    }

    #[test]
    fn the_record_of_a_residual_network_is_stable() {
        let json = serde_json::to_string(&ModelConfig::by_name("resnet18", 10)).unwrap();
        let want = r#"{"architecture":"resnet","depth":18,"num_classes":10,"stem":"imagenet","image_size":224}"#;
        assert_eq!(json, want);
        for wrong in [want.replace("18", "19"), want.replace("stem", "root")] {
            assert!(serde_json::from_str::<ModelConfig>(&wrong).is_err(), "{wrong}");
        }
    }
}
