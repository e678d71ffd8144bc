//! Features of a frozen trunk, computed once and kept on the disk.
//!
//! While all of a model but its head is frozen, what the head sees of an image cannot change. [`FeatureLoader`] stands in a
//! loader's place: it gives the same samples in the same batches and order, as features instead of images, and [`Head`]
//! stands in the model's. Of augmented images it keeps a few *views*: view `v` is what a run without the cache would see in
//! epoch `v`, and epoch `e` is shown view `e mod views`. With as many views as epochs, or without augmentation and with one, a
//! run with the cache is the run without it, to the last digit.
//!
//! A file is named after the sha256 of everything that its features are a function of, and holds that sha256 and one of its
//! contents: features of other weights, data, transforms or devices are never used, nor damaged ones. Data are other data where a
//! file holds something else, though it has kept its name and size: all files are read and hashed before features are used, which
//! takes a small part of the time to compute them. A file of features that lacks damaged images, which were skipped, is used where as
//! many may be skipped.
//!
//! Shapes: `M` samples, `F` features.

mod file;
mod head;
mod loader;

pub use head::Head;
pub use loader::FeatureLoader;

use std::path::PathBuf;

/// A folder of features.
#[derive(Clone, Debug)]
pub struct FeatureCache {
    folder: PathBuf,
}

impl FeatureCache {
    /// The cache in a folder, which is made when the first features are kept.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }
}
