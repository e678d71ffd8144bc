//! The sample that the program carries: 6,000 + 1,000 images of Fashion-MNIST, padded to 32x32 RGB.
//!
//! Real images, for a first run without a network or any data. What it is and how it was made stands in
//! `data/fashion-mnist-sample/README.md`; its licence is MIT (Zalando SE).

use std::path::Path;
use std::sync::Arc;

use super::{InMemory, Splits, idx};
use crate::error::Result;

/// Fashion-MNIST's class names.
pub const CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

/// A name, images and labels, as gzipped IDX.
struct Part {
    name: &'static str,
    images: &'static [u8],
    labels: &'static [u8],
}

macro_rules! part {
    ($name:literal, $prefix:literal) => {
        Part {
            name: $name,
            images: include_bytes!(concat!(
                "../../../../data/fashion-mnist-sample/",
                $prefix,
                "-images-idx3-ubyte.gz"
            )),
            labels: include_bytes!(concat!(
                "../../../../data/fashion-mnist-sample/",
                $prefix,
                "-labels-idx1-ubyte.gz"
            )),
        }
    };
}

const TRAIN: Part = part!("Fashion-MNIST sample, train", "train");
const TEST: Part = part!("Fashion-MNIST sample, test", "t10k");

/// Loads the sample: grey becomes RGB, and two black pixels on each side make 28x28 into 32x32.
///
/// # Errors
/// None in practice: the bytes are part of the program, and a test compares their checksums.
pub fn load() -> Result<Splits<InMemory>> {
    Ok(Splits {
        train: Arc::new(read(&TRAIN)?),
        val: None,
        test: Arc::new(read(&TEST)?),
    })
}

fn read(part: &Part) -> Result<InMemory> {
    let source = Path::new(part.name);
    let images = idx::read(part.images, source)?;
    let labels = idx::read(part.labels, source)?;
    idx::into_dataset(&images, &labels, CLASSES.map(String::from).to_vec(), source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Fingerprint;

    #[test]
    fn embedded_bytes_have_the_recorded_checksums() {
        let sums = include_str!("../../../../data/fashion-mnist-sample/SHA256SUMS");
        for (name, bytes) in [
            ("train-images-idx3-ubyte.gz", TRAIN.images),
            ("train-labels-idx1-ubyte.gz", TRAIN.labels),
            ("t10k-images-idx3-ubyte.gz", TEST.images),
            ("t10k-labels-idx1-ubyte.gz", TEST.labels),
        ] {
            let line = format!("{}  {name}", Fingerprint::of(bytes));
            assert!(sums.lines().any(|l| l == line), "{line}");
        }
        assert_eq!(sums.lines().count(), 4);
    }
}
