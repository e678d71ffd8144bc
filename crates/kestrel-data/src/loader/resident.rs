//! A data set's images on a device, so that a batch costs no copy of pixels: whether they can be kept there, and moving them.

use candle_core::Device;
use kestrel_kernels::pixels::ResidentImages;

use crate::datasets::Dataset;
use crate::error::{Error, Result};
use crate::pixels::CHANNELS;
use crate::transforms::{Compose, SampleKey};

/// The most that a data set may take of a device: what is left is the network's.
const MAX_BYTES: u64 = 4 << 30;

/// Why a data set's images cannot be kept on a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotResident {
    /// A transform does more to an image than moving its rows and columns and erasing one rectangle.
    #[error("{step} works on pixels in the host's memory")]
    Transform {
        /// The transform's name.
        step: String,
    },
    /// The images lie in files, or differ in size.
    #[error("the images of {dataset} are not all in memory")]
    NotInMemory {
        /// The data set.
        dataset: String,
    },
    /// The images are too many.
    #[error("the images of {dataset} are {bytes} bytes, more than {limit}")]
    TooLarge {
        /// The data set.
        dataset: String,
        /// The bytes of all images.
        bytes: u64,
        /// The most that may be.
        limit: u64,
    },
}

/// Copies the images of `dataset` to `device`, where `transforms` can work on them.
pub(super) fn upload(dataset: &dyn Dataset, transforms: &Compose, device: &Device) -> Result<ResidentImages> {
    let describe = || dataset.describe();
    let size = dataset
        .size_in_memory()
        .ok_or_else(|| NotResident::NotInMemory { dataset: describe() })?;
    // Whether a step can be placed does not depend on the draws, and so neither do the colours of paddings.
    let key = SampleKey {
        seed: 0,
        epoch: 0,
        index: 0,
    };
    let (_, fills) = transforms.place(size, 0, key)?;
    let image = size.0 as u64 * size.1 as u64 * CHANNELS as u64;
    let bytes = image.saturating_mul(dataset.len() as u64);
    if bytes > MAX_BYTES {
        return Err(NotResident::TooLarge {
            dataset: describe(),
            bytes,
            limit: MAX_BYTES,
        }
        .into());
    }
    let mut pixels = Vec::with_capacity(bytes as usize);
    for index in 0..dataset.len() {
        pixels.extend_from_slice(&dataset.image(index)?.pixels());
    }
    let images = ResidentImages::new(pixels, size, transforms.planes(), &fills, device);
    images.map_err(Error::kernel("cannot keep the images on the device"))
}
