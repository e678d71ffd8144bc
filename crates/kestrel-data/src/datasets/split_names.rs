//! Folder names that mean a split: such folders are never taken for classes, nor passed over, in silence.

use std::path::Path;

use crate::error::{Error, Result};

/// The names under which splits are read.
pub(super) const READ: [&str; 3] = ["train", "val", "test"];

const TO_TRAIN: [&str; 2] = ["train", "training"];
const TO_EVALUATE: [&str; 8] = [
    "val",
    "valid",
    "validation",
    "dev",
    "test",
    "testing",
    "eval",
    "evaluation",
];

/// Refuses class folders that look like splits: all of them, or one to train on and one to evaluate on, whatever their case;
/// or two such folders within one of them. `inside` gives the names of the folders in a class folder, at least of those for
/// which [`is_one`].
///
/// # Errors
/// [`Error::SplitsNotClasses`]; `path` is where the class folders lie.
pub(super) fn refuse_as_classes(path: &Path, classes: &[String], inside: impl Fn(&str) -> Vec<String>) -> Result<()> {
    let refuse = |path: &Path, found: Vec<String>| {
        Err(Error::SplitsNotClasses {
            path: path.to_path_buf(),
            found,
        })
    };
    let found = split_names(classes);
    if !found.is_empty() && (found.len() == classes.len() || are_splits(&found)) {
        return refuse(path, found);
    }
    for class in classes {
        let found = split_names(&inside(class));
        if are_splits(&found) {
            return refuse(&path.join(class), found);
        }
    }
    Ok(())
}

/// Refuses folders beside those of the splits that are named like splits too: nobody who has a `valid` expects it to be passed over.
/// `beside` are the names of all folders there.
///
/// # Errors
/// [`Error::UnknownSplit`]; `path` is where the splits' folders lie.
pub(super) fn refuse_beside_splits<'a>(path: &Path, beside: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let found: Vec<String> = beside
        .into_iter()
        .filter(|name| is_one(name))
        .map(str::to_owned)
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::UnknownSplit {
        path: path.to_path_buf(),
        found,
    })
}

/// Whether a folder of this name is one of the splits.
pub(super) fn is_one(name: &str) -> bool {
    is_in(name, &TO_TRAIN) || is_in(name, &TO_EVALUATE)
}

fn split_names(folders: &[String]) -> Vec<String> {
    folders.iter().filter(|name| is_one(name)).cloned().collect()
}

/// Whether there is a name to train on and one to evaluate on.
fn are_splits(names: &[String]) -> bool {
    [&TO_TRAIN[..], &TO_EVALUATE]
        .into_iter()
        .all(|kind| names.iter().any(|name| is_in(name, kind)))
}

fn is_in(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known))
}
