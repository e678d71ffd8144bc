//! Weight files: Kestrel's, torch's and other programs' safetensors.
//!
//! Names need no mapping: a network's are those of torchvision, and timm's `resnet18`, `resnet34` and `resnet50` have the same.

mod file_kind;
mod pth;
mod safetensors;

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use serde::{Deserialize, Serialize};

use self::file_kind::{FileKind, HEAD};
pub use self::pth::read_pth;
pub use self::safetensors::{TensorFile, export, parse, read, serialise};

use crate::{Error, ModelConfig, Result};

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
    /// The steps that bring a picture to the network's input, as the program that trained it describes them; the reference's
    /// where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transforms: Option<serde_json::Value>,
    /// What logits are divided by before softmax, so that the probabilities are honest: fitted on validation images. 1 where
    /// nothing is said, as in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
}

/// A few lines of Python that make the network in PyTorch and load a file of [`export`] into it.
///
/// ```
/// use kestrel_models::{ModelConfig, weights::pytorch_snippet};
///
/// let config = ModelConfig::by_name("resnet18", 10).unwrap();
/// let want = "import torchvision
/// from safetensors.torch import load_file
/// model = torchvision.models.resnet18(num_classes=10)
/// model.load_state_dict(load_file(\"a.safetensors\"))
/// model.eval()";
/// assert_eq!(pytorch_snippet(&config, "a.safetensors".as_ref()), want);
/// ```
pub fn pytorch_snippet(config: &ModelConfig, path: &Path) -> String {
    let make = config.pytorch();
    let imports = [
        ("OrderedDict(", "from collections import OrderedDict"),
        ("nn.", "from torch import nn"),
        ("torchvision.", "import torchvision"),
        ("", "from safetensors.torch import load_file"),
    ];
    let imports = imports.iter().filter(|(word, _)| make.contains(word));
    let imports: Vec<&str> = imports.map(|(_, import)| *import).collect();
    // JSON's escapes are Python's.
    let path = serde_json::Value::from(path.to_string_lossy());
    format!(
        "{}\n{make}\nmodel.load_state_dict(load_file({path}))\nmodel.eval()",
        imports.join("\n")
    )
}

/// Reads a weight file: torch's zip format by [`read_pth`], anything else as safetensors by [`read`]. The content decides,
/// not the name.
///
/// # Errors
/// [`Error::Read`] where the file cannot be read, else those of the two.
pub fn load(path: &Path) -> Result<TensorFile> {
    let io = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(io)?;
    let mut head = Vec::new();
    file.by_ref().take(HEAD as u64).read_to_end(&mut head).map_err(io)?;
    if FileKind::of(&head) != FileKind::Zip {
        return read(path);
    }
    file.rewind().map_err(io)?;
    Ok(TensorFile {
        tensors: read_pth(BufReader::new(file), path)?,
        record: None,
    })
}
