//! CIFAR-100's binary layout: `train.bin` and `test.bin`, in a folder or in the official archive.
//!
//! A file is 50,000 or 10,000 records of 3,074 bytes: the coarse label, the fine label, then the red, the green and the blue
//! plane, each 32x32, row by row. The fine label is the class.

use std::path::Path;

use super::cifar_binary::Layout;
use super::{InMemory, Splits};
#[cfg(feature = "download")]
use crate::download::{Download, Options, Progress};
use crate::error::Result;

/// The names of the fine classes.
#[rustfmt::skip]
pub const CLASSES: [&str; 100] = [
    "apple",
    "aquarium_fish",
    "baby",
    "bear",
    "beaver",
    "bed",
    "bee",
    "beetle",
    "bicycle",
    "bottle",
    "bowl",
    "boy",
    "bridge",
    "bus",
    "butterfly",
    "camel",
    "can",
    "castle",
    "caterpillar",
    "cattle",
    "chair",
    "chimpanzee",
    "clock",
    "cloud",
    "cockroach",
    "couch",
    "crab",
    "crocodile",
    "cup",
    "dinosaur",
    "dolphin",
    "elephant",
    "flatfish",
    "forest",
    "fox",
    "girl",
    "hamster",
    "house",
    "kangaroo",
    "keyboard",
    "lamp",
    "lawn_mower",
    "leopard",
    "lion",
    "lizard",
    "lobster",
    "man",
    "maple_tree",
    "motorcycle",
    "mountain",
    "mouse",
    "mushroom",
    "oak_tree",
    "orange",
    "orchid",
    "otter",
    "palm_tree",
    "pear",
    "pickup_truck",
    "pine_tree",
    "plain",
    "plate",
    "poppy",
    "porcupine",
    "possum",
    "rabbit",
    "raccoon",
    "ray",
    "road",
    "rocket",
    "rose",
    "sea",
    "seal",
    "shark",
    "shrew",
    "skunk",
    "skyscraper",
    "snail",
    "snake",
    "spider",
    "squirrel",
    "streetcar",
    "sunflower",
    "sweet_pepper",
    "table",
    "tank",
    "telephone",
    "television",
    "tiger",
    "tractor",
    "train",
    "trout",
    "tulip",
    "turtle",
    "wardrobe",
    "whale",
    "willow_tree",
    "wolf",
    "woman",
    "worm",
];

const LAYOUT: Layout = Layout {
    name: "CIFAR-100",
    folder: "cifar-100-binary",
    archive_name: "cifar-100-binary.tar.gz",
    train: &["train.bin"],
    test: &["test.bin"],
    train_records: 50_000,
    label_bytes: 2,
    classes: &CLASSES,
    extra: &["coarse_label_names.txt", "fine_label_names.txt"],
    expected: "cifar-100-binary with train.bin and test.bin, or cifar-100-binary.tar.gz",
};

/// The folder in the official archive.
pub const FOLDER: &str = LAYOUT.folder;
/// The official archive's file name.
pub const ARCHIVE_NAME: &str = LAYOUT.archive_name;

/// The official archive. The sha256 is the one that TensorFlow Datasets pins for it.
#[cfg(feature = "download")]
pub const ARCHIVE: Download<'_> = Download {
    urls: &["https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"],
    file_name: ARCHIVE_NAME,
    size: Some(168_513_733),
    sha256: "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
};

/// Whether `path` is, or contains, CIFAR-100's binary folder or archive.
pub fn is_binary(path: &Path) -> bool {
    LAYOUT.is_at(path)
}

/// Opens CIFAR-100's binary folder, the folder that contains it, or its archive.
///
/// # Errors
/// As [`super::cifar10::open`].
pub fn open(path: &Path) -> Result<Splits<InMemory>> {
    LAYOUT.open(path)
}

/// Reads any number of records, as pixels `[N, 32, 32, 3]` and fine labels `[N]`; `path` is for errors.
///
/// # Errors
/// [`crate::Error::Truncated`], [`crate::Error::LabelOutOfRange`].
pub fn parse(bytes: &[u8], path: &Path) -> Result<(Vec<u8>, Vec<u32>)> {
    LAYOUT
        .parse(bytes, path)
        .map(|records| (records.pixels, records.labels))
}

/// Opens the copy in `data_dir/cifar-100-binary`, if it is there and complete.
///
/// # Errors
/// As [`super::cifar10::open_cached`].
pub fn open_cached(data_dir: &Path) -> Result<Option<Splits<InMemory>>> {
    LAYOUT.open_cached(data_dir)
}

/// Opens the copy under `data_dir`; without one, fetches `archive` (normally [`ARCHIVE`]) there and unpacks it.
///
/// # Errors
/// As [`super::cifar10::open_or_download`].
#[cfg(feature = "download")]
pub fn open_or_download(
    data_dir: &Path,
    archive: &Download<'_>,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Splits<InMemory>> {
    LAYOUT.open_or_download(data_dir, archive, options, progress)
}
