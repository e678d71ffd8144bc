//! Metrics, one a file.

mod accuracy;
mod confusion;
mod mean;

pub use accuracy::{Accuracy, argmax};
pub use confusion::ConfusionMatrix;
pub use mean::Mean;
