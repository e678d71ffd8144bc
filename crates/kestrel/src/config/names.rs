//! What an option may be where it is one of several names.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A data set by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DatasetName {
    /// CIFAR-10; the embedded sample where it cannot be had.
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

/// What a schedule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LrInterval {
    /// Epochs.
    Epoch,
    /// Steps of the optimiser.
    Step,
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
