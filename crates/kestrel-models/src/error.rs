//! The errors of this crate.

use std::path::PathBuf;

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong when a model is built, run, saved or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A training op failed.
    #[error(transparent)]
    Kernel(#[from] kestrel_kernels::Error),
    /// A model was configured with a value it cannot take.
    #[error("{field} is {got}, but must be {expected}")]
    InvalidConfig {
        /// The name of the option.
        field: &'static str,
        /// What the option may be.
        expected: &'static str,
        /// What it was.
        got: String,
    },
    /// The input batch is not what the model takes.
    #[error("the model takes images of shape {expected}, got {got:?}")]
    InputShape {
        /// The shape in words.
        expected: String,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// A model does not say what its last feature map is.
    #[error("the model does not give its last feature map; implement feature_map and classify_map of its Model")]
    NoFeatureMap,
    /// A state dict does not fit the model. Nothing was changed.
    #[error("the weights do not fit the model (nothing was loaded): {0}")]
    StateDict(StateDictMismatch),
    /// A file could not be read.
    #[error("cannot read weights from {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A module or parameter was named that the model does not have.
    #[error("the model has no parameters called {name:?}")]
    UnknownModule {
        /// The name that was given.
        name: String,
    },
    /// A layer group was named that the model does not have.
    #[error("the model has no layer group called {name:?}; its groups are {}", groups.join(", "))]
    UnknownLayerGroup {
        /// The name that was given.
        name: String,
        /// Those it has, from the input to the last layer.
        groups: Vec<&'static str>,
    },
    /// A pickle asks for something to be called or made that is no part of a state dict. Nothing of it was run.
    #[error(
        "{} asks for {global}, which no file of tensors needs; nothing of it was run. If it is a whole model of yours, save its \
         weights alone: torch.save(model.state_dict(), FILE)",
        path.display()
    )]
    ForbiddenGlobal {
        /// The file.
        path: PathBuf,
        /// What it asks for, as `module.name`.
        global: String,
    },
    /// A file names tensors that cannot be read. None was.
    #[error("cannot read these tensors of {}: {}; fetch or save it again", path.display(), list(faults))]
    UnreadableTensors {
        /// The file.
        path: PathBuf,
        /// Each tensor's name, and what is wrong with it.
        faults: Vec<(String, String)>,
    },
    /// A file is not a weight file.
    #[error("{} is not a weight file: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A model does not say its layers, so that it cannot be summarised or exported as a graph.
    #[error("the model does not say its layers; implement Model::graph for it")]
    NoGraph,
    /// A model's graph is not that of its parameters, or cannot take the images.
    #[error("{layer} {fault}")]
    Graph {
        /// The layer, or a parameter of none.
        layer: String,
        /// What is wrong with it.
        fault: String,
    },
    /// What is known of a model could not be written as JSON.
    #[error("cannot write the model's record: {0}")]
    Record(#[from] serde_json::Error),
    /// Tensors could not be laid out as a safetensors file.
    #[error("cannot serialise the weights: {0}")]
    Serialise(#[from] safetensors::SafeTensorError),
}

fn list(faults: &[(String, String)]) -> String {
    let faults: Vec<String> = faults.iter().map(|(name, fault)| format!("{name}: {fault}")).collect();
    faults.join("; ")
}

/// Every way in which a state dict differs from what a model expects.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct StateDictMismatch {
    /// Names that the model has and the dict lacks.
    pub missing: Vec<String>,
    /// Names that the dict has and the model lacks.
    pub unexpected: Vec<String>,
    /// Tensors of another shape or type: name, expected, got.
    pub mismatched: Vec<(String, String, String)>,
}

impl StateDictMismatch {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }
}

impl std::fmt::Display for StateDictMismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        if !self.missing.is_empty() {
            parts.push(format!("missing {}", self.missing.join(", ")));
        }
        if !self.unexpected.is_empty() {
            parts.push(format!("unexpected {}", self.unexpected.join(", ")));
        }
        parts.extend(
            self.mismatched
                .iter()
                .map(|(name, want, got)| format!("{name}: expected {want}, got {got}")),
        );
        f.write_str(&parts.join("; "))
    }
}
