//! What an option may be where it is one of several names.

use clap::ValueEnum;
use kestrel_kernels::autocast::Precision;
use kestrel_models::Depth;
use kestrel_train::early_stopping::Watched;
use serde::{Deserialize, Serialize};

/// A data set by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DatasetName {
    /// The command's own choice, as said of this option.
    Auto,
    /// CIFAR-10, or an error.
    Cifar10,
    /// CIFAR-100, or an error.
    Cifar100,
    /// The embedded sample: 6,000 + 1,000 images of Fashion-MNIST.
    FashionMnistSample,
    /// MNIST, from --data (a folder of IDX files) or downloaded once.
    Mnist,
    /// Fashion-MNIST, from --data (a folder of IDX files) or downloaded once.
    FashionMnist,
}

/// The precision of the model and the loss by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PrecisionName {
    /// Single precision throughout.
    F32,
    /// Single precision, but for convolutions' factors, which a GPU rounds to TF32.
    Tf32,
    /// Products in bfloat16; weights, sums and losses stay f32.
    Bf16,
    /// Products in half precision, with a scaled loss; weights, sums and losses stay f32.
    F16,
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Self {
        match name {
            PrecisionName::F32 | PrecisionName::Tf32 => Self::F32,
            PrecisionName::Bf16 => Self::Bf16,
            PrecisionName::F16 => Self::F16,
        }
    }
}

/// How an epoch visits the training images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SamplerName {
    /// Each once, in a fresh order.
    Shuffled,
    /// Drawn with replacement, every class alike.
    ClassBalanced,
    /// Drawn with replacement, by the weight of its class.
    Weighted,
}

/// An optimiser by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OptimizerName {
    /// Adam with coupled weight decay.
    Adam,
    /// Adam with decoupled weight decay.
    #[value(name = "adamw")]
    #[serde(rename = "adamw")]
    AdamW,
    /// Gradient descent with momentum.
    Sgd,
    /// RMSprop.
    #[value(name = "rmsprop")]
    #[serde(rename = "rmsprop")]
    RmsProp,
    /// Lion.
    Lion,
    /// Muon for the convolution weights, AdamW for the rest.
    Muon,
}

/// A scheduler by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SchedulerName {
    /// Reduce the rate when the validation loss stops falling.
    Plateau,
    /// Reduce it every --lr-step-size.
    Step,
    /// Reduce it at --milestones.
    MultiStep,
    /// Lower it along half a cosine.
    Cosine,
    /// The same, again and again.
    CosineRestarts,
    /// Raise it to --lr, then lower it to almost nothing.
    OneCycle,
    /// Leave it.
    Constant,
}

/// The curve between two learning rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AnnealName {
    /// Half a cosine.
    Cos,
    /// A straight line.
    Linear,
}

/// What a schedule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LrInterval {
    /// Epochs.
    Epoch,
    /// Steps of the optimiser.
    Step,
}

/// What early stopping watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WatchedName {
    /// The validation loss.
    ValLoss,
    /// The validation accuracy.
    ValAccuracy,
}

impl WatchedName {
    pub(crate) fn watched(self) -> Watched {
        match self {
            Self::ValLoss => Watched::ValLoss,
            Self::ValAccuracy => Watched::ValAccuracy,
        }
    }
}

/// A loss by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LossName {
    /// Cross-entropy.
    CrossEntropy,
    /// Focal loss.
    Focal,
}

/// A network by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub(crate) enum ModelName {
    /// The CNN of the reference program.
    Cnn,
    /// torchvision's ResNet-18.
    ResNet18,
    /// torchvision's ResNet-34.
    ResNet34,
    /// torchvision's ResNet-50.
    ResNet50,
    /// A CNN that trains fast on small images: whitened patches, gelu, and batch norms that only shift.
    #[value(name = "whitened-cnn")]
    #[serde(rename = "whitened-cnn")]
    WhitenedCnn,
}

impl ModelName {
    /// The residual network of that name, if it is one.
    pub(crate) fn depth(self) -> Option<Depth> {
        match self {
            Self::Cnn | Self::WhitenedCnn => None,
            Self::ResNet18 => Some(Depth::ResNet18),
            Self::ResNet34 => Some(Depth::ResNet34),
            Self::ResNet50 => Some(Depth::ResNet50),
        }
    }
}

/// How a residual network begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StemName {
    /// torchvision's: 7x7 with stride 2, then pooling.
    Imagenet,
    /// For small images: 3x3 with stride 1.
    Cifar,
}

/// The transforms of images where a file names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PreprocessingName {
    /// Flip and padded crop; CIFAR's mean and std.
    Cifar,
    /// RandomResizedCrop and flip, Resize and CenterCrop; ImageNet's mean and std.
    Imagenet,
}

/// Pretrained weights by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PretrainedName {
    /// torchvision's, trained on ImageNet (IMAGENET1K_V1).
    Imagenet,
}
