//! Metrics, one a file.

mod accuracy;
mod calibration;
mod class_scores;
mod confusion;
mod logits;
mod mean;
mod temperature;
mod top_k;

pub use accuracy::{Accuracy, argmax};
pub use calibration::{NUM_BINS, Reliability, ReliabilityBin};
pub use class_scores::{ClassScores, class_scores};
pub use confusion::ConfusionMatrix;
pub use logits::{Logits, Predicted};
pub use mean::Mean;
pub use temperature::{RANGE as TEMPERATURE_RANGE, fit_temperature};
pub use top_k::top_k_accuracy;
