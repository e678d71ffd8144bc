//! Weight files.

mod safetensors;

pub use self::safetensors::{TensorFile, parse, read, serialise};

use serde::{Deserialize, Serialize};

use crate::ModelConfig;

/// What a weight file says of its tensors: all that is needed to run them on a picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The network.
    pub model: ModelConfig,
    /// The names of the classes, by index.
    pub classes: Vec<String>,
    /// Per channel, what was subtracted from a pixel in `[0, 1]`.
    pub mean: [f32; 3],
    /// Per channel, what it was then divided by.
    pub std: [f32; 3],
}
