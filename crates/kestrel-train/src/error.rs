//! The errors of this crate.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::NonFinite;

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong while training, evaluating, saving or resuming.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A training op failed.
    #[error(transparent)]
    Kernel(#[from] kestrel_kernels::Error),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] kestrel_models::Error),
    /// The data set or its loader failed.
    #[error(transparent)]
    Data(#[from] kestrel_data::Error),
    /// A loss or a gradient is NaN or infinite; the update was not made.
    #[error("{0}")]
    NonFinite(Box<NonFinite>),
    /// The device has no memory left for a training or an evaluation batch; of a run, no state of half a step is saved.
    #[error(
        "the device has not enough memory for a batch of {batch_size} ({source}); free some of it, or take a smaller batch; \
         of a run, the last checkpoint is valid, and goes on with the batches that it was begun with: a smaller batch-size, with \
         accumulate larger by as much, is a new run"
    )]
    OutOfMemory {
        /// Images in the batch.
        batch_size: usize,
        /// What the device said.
        source: Box<Error>,
    },
    /// A callback stopped the run while it evaluated; [`Trainer::fit`](crate::Trainer::fit) ends well then.
    #[error("the evaluation was stopped")]
    Stopped,
    /// An optimiser or scheduler got a value it cannot take.
    #[error("{field} is {got}, but must be {expected}")]
    InvalidConfig {
        /// The name of the option.
        field: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it was.
        got: String,
    },
    /// A data set and a model disagree on the number of classes.
    #[error("the model has {model} classes and the data set {data} ({names}); build the model for {data} classes")]
    ClassCount {
        /// The model's classes.
        model: usize,
        /// The data set's classes.
        data: usize,
        /// Their names.
        names: String,
    },
    /// Features were asked for of a model whose features will change.
    #[error("features are kept of a frozen model alone, but these parameters before the head are trained: {}", trained.join(", "))]
    TrainedFeatures {
        /// The parameters.
        trained: Vec<String>,
    },
    /// Features were asked for of images that are mixed with others.
    #[error("the transforms mix images (MixUp or CutMix), so an image has no features of its own to keep")]
    MixedFeatures,
    /// A file of features is not to be used.
    #[error("the features in {} are not used: {reason}", path.display())]
    InvalidFeatures {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The preprocessing that a weight file describes is not known.
    #[error(
        "the weights were saved with preprocessing that this version does not know: {source}; use the version that wrote them"
    )]
    InvalidTransforms {
        /// The cause.
        source: serde_json::Error,
    },
    /// A model's logits lead back to no gradient at its feature map.
    #[error("the logits give no gradient at the feature map; the model's classify_map must keep candle's graph")]
    NoMapGradient,
    /// There is nothing to train on or to evaluate.
    #[error("the {split} split is empty; give a data set with at least one image")]
    EmptySplit {
        /// Which split.
        split: &'static str,
    },
    /// A file could not be written. What stood there before is untouched.
    #[error("cannot write {}: {source}; {}", path.display(), advice(source.kind()))]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A record in a run's folder is not one of ours.
    #[error("{} is not a record of a run: {reason}; {}", path.display(), advice_on_record(path))]
    InvalidRecord {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A folder is no run's.
    #[error("{} holds nothing of a run; name a folder that `kestrel train` or `kestrel evaluate` wrote, such as runs/NAME", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// The state that was to be saved is not a number; what stood at the path is untouched.
    #[error(
        "{} was not written: {tensor} is not finite; lower the learning rate, and go on from the last checkpoint", path.display()
    )]
    NonFiniteState {
        /// The file.
        path: PathBuf,
        /// The first such tensor.
        tensor: String,
    },
    /// A file is not a whole, unchanged checkpoint.
    #[error("{} is not a valid checkpoint: {reason}; use an older one", path.display())]
    InvalidCheckpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A weight file does not say what its tensors belong to.
    #[error(
        "{} has no record of its network, classes and preprocessing: exports for PyTorch have none; give the best.safetensors that \
         it was exported from", path.display()
    )]
    NoRecord {
        /// The file.
        path: PathBuf,
    },
    /// A checkpoint belongs to something else than what it is loaded into.
    #[error("the checkpoint does not fit this run: {reason}")]
    CheckpointMismatch {
        /// What differs.
        reason: String,
    },
    /// A picture could not be encoded.
    #[error("cannot write the picture {}: {source}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: image::ImageError,
    },
}

/// What to do about a file that could not be written.
fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::PermissionDenied => "you may not write there: get the right to, or choose another folder",
        ErrorKind::ReadOnlyFilesystem => "nothing can be written there: choose another folder",
        ErrorKind::NotFound => "make its folder first, or choose another",
        ErrorKind::NotADirectory => "a part of its path is a file and no folder: choose another folder",
        ErrorKind::IsADirectory => "a folder has that name: choose another name",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "free space or choose another folder"
        }
        _ => "choose another folder",
    }
}

/// What to do about a record that is none. Most are written by the run alone: they are not to be removed.
fn advice_on_record(path: &Path) -> &'static str {
    match path.file_name().and_then(OsStr::to_str) {
        Some("evaluation.json" | "gallery.json") => "remove it, and make it again with `kestrel evaluate`",
        _ => "correct it: it is written by the run itself, and not made again",
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn only_what_can_be_made_again_is_to_be_removed() {
        for (file, again) in [
            ("evaluation.json", true),
            ("gallery.json", true),
            ("data.json", false),
            ("environment.json", false),
            ("config.toml", false),
        ] {
            let path = Path::new("runs/a").join(file);
            let reason = "expected value at line 1".to_owned();
            let text = Error::InvalidRecord { path, reason }.to_string();
            assert_eq!(text.contains("remove it"), again, "{text}");
            assert_eq!(text.contains("correct it"), !again, "{text}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_with_what_helps() {
        for (kind, word) in [
            (ErrorKind::PermissionDenied, "you may not write there"),
            (ErrorKind::ReadOnlyFilesystem, "nothing can be written there"),
            (ErrorKind::NotFound, "make its folder first"),
            (ErrorKind::NotADirectory, "a file and no folder"),
            (ErrorKind::IsADirectory, "a folder has that name"),
            (ErrorKind::StorageFull, "free space"),
            (ErrorKind::QuotaExceeded, "free space"),
            (ErrorKind::FileTooLarge, "free space"),
            (ErrorKind::Other, "choose another folder"),
        ] {
            let path = "runs/a/best.safetensors".into();
            let source = io::Error::from(kind);
            let text = Error::Write { path, source }.to_string();
            assert!(text.starts_with("cannot write runs/a/best.safetensors: "), "{text}");
            assert!(text.contains(word), "{text}");
            assert_eq!(text.contains("free space"), word == "free space", "{text}");
        }
    }
}
