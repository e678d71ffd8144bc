//! The shape of a [`ResNet`](super::ResNet).

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Which residual network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNetConfig {
    /// How many layers.
    pub depth: Depth,
    /// How many classes.
    pub num_classes: usize,
    /// How it begins.
    pub stem: Stem,
    /// Side of the square images that it is trained on, in pixels, at least the network's stride. It takes images of any size.
    pub image_size: usize,
}

/// How many layers a network has: its name in torchvision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum Depth {
    /// Blocks of two 3x3 convolutions, 2 + 2 + 2 + 2 of them.
    ResNet18,
    /// Blocks of two 3x3 convolutions, 3 + 4 + 6 + 3 of them.
    ResNet34,
    /// Bottleneck blocks, 3 + 4 + 6 + 3 of them.
    ResNet50,
}

/// How a network begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// torchvision's: a 7x7 convolution with stride 2 and a 3x3 max pooling with stride 2.
    Imagenet,
    /// For small images: a 3x3 convolution with stride 1, and no pooling (He et al. 2015, section 4.2).
    Cifar,
}

impl ResNetConfig {
    /// torchvision's network, for images of 224x224 pixels.
    pub fn new(depth: Depth, num_classes: usize) -> Self {
        Self {
            depth,
            num_classes,
            stem: Stem::Imagenet,
            image_size: 224,
        }
    }

    /// The network with the stem for small images, of 32x32 pixels.
    pub fn cifar(depth: Depth, num_classes: usize) -> Self {
        Self {
            stem: Stem::Cifar,
            image_size: 32,
            ..Self::new(depth, num_classes)
        }
    }

    /// Lines of Python that make `model` in PyTorch.
    pub(crate) fn pytorch(&self) -> String {
        let make = format!(
            "model = torchvision.models.{}(num_classes={})",
            self.depth.name(),
            self.num_classes
        );
        match self.stem {
            Stem::Imagenet => make,
            Stem::Cifar => {
                format!("{make}\nmodel.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()")
            }
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let (stride, at_least) = match self.stem {
            Stem::Imagenet => (32, "at least 32, the network's stride; the cifar stem's is 8"),
            Stem::Cifar => (8, "at least 8, the network's stride"),
        };
        for (field, value, least, expected) in [
            ("num_classes", self.num_classes, 1, "at least 1"),
            ("image_size", self.image_size, stride, at_least),
        ] {
            if value < least {
                return Err(Error::InvalidConfig {
                    field,
                    expected,
                    got: value.to_string(),
                });
            }
        }
        Ok(())
    }
}

impl Stem {
    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Stem::Imagenet => "imagenet",
            Stem::Cifar => "cifar",
        }
    }
}

impl Depth {
    /// torchvision's name.
    pub fn name(self) -> &'static str {
        match self {
            Depth::ResNet18 => "resnet18",
            Depth::ResNet34 => "resnet34",
            Depth::ResNet50 => "resnet50",
        }
    }

    /// How many blocks the four layers have.
    pub(super) fn blocks(self) -> [usize; 4] {
        match self {
            Depth::ResNet18 => [2, 2, 2, 2],
            Depth::ResNet34 | Depth::ResNet50 => [3, 4, 6, 3],
        }
    }
}

impl From<Depth> for u32 {
    fn from(depth: Depth) -> Self {
        match depth {
            Depth::ResNet18 => 18,
            Depth::ResNet34 => 34,
            Depth::ResNet50 => 50,
        }
    }
}

impl TryFrom<u32> for Depth {
    type Error = String;

    fn try_from(depth: u32) -> std::result::Result<Self, String> {
        match depth {
            18 => Ok(Depth::ResNet18),
            34 => Ok(Depth::ResNet34),
            50 => Ok(Depth::ResNet50),
            other => Err(format!("depth is {other}, but must be 18, 34 or 50")),
        }
    }
}
