//! Data sets that candle-datasets reads: MNIST's plain files, and MNIST and Fashion-MNIST from the Hugging Face hub.
//!
//! candle-datasets yields `f32` in `[0, 1]`; here they become 8-bit pixels again, exactly. Its CIFAR-10 from the hub is not
//! offered: it yields transposed images and drops rows that fail (candle-datasets 0.11.1). CIFAR-10 is [`super::cifar10`]'s.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use candle_datasets::vision;

use super::{InMemory, Splits, idx, sample};
use crate::error::{Error, Result};
use crate::pixels::CHANNELS;

/// Reads MNIST's four plain files (`train-images-idx3-ubyte`, …) from a folder, padded to 32x32 RGB.
///
/// # Errors
/// [`Error::Candle`] if candle-datasets cannot read them, and those of [`from_candle`].
pub fn mnist(folder: &Path) -> Result<Splits<InMemory>> {
    let dataset = vision::mnist::load_dir(folder).map_err(Error::candle("cannot read MNIST's files"))?;
    from_candle(&dataset, &digits(), &folder.display().to_string())
}

/// Fetches MNIST from the Hugging Face hub, or takes it from the hub's cache; padded to 32x32 RGB.
///
/// # Errors
/// [`Error::Candle`] if it cannot be fetched or read, and those of [`from_candle`].
pub fn mnist_from_hub() -> Result<Splits<InMemory>> {
    let dataset = vision::mnist::load().map_err(Error::candle("cannot fetch MNIST from the hub"))?;
    from_candle(&dataset, &digits(), "MNIST")
}

/// Fetches Fashion-MNIST from the Hugging Face hub, or takes it from the hub's cache; padded to 32x32 RGB.
///
/// # Errors
/// [`Error::Candle`] if it cannot be fetched or read, and those of [`from_candle`].
pub fn fashion_mnist_from_hub() -> Result<Splits<InMemory>> {
    let dataset = vision::fashion_mnist::load().map_err(Error::candle("cannot fetch Fashion-MNIST from the hub"))?;
    from_candle(&dataset, &sample::CLASSES.map(String::from), "Fashion-MNIST")
}

/// Makes 8-bit pixels of a data set that candle-datasets read; 28x28 grey becomes 32x32 RGB.
///
/// # Shapes
/// Images are `[N, 784]` (28x28 grey), `[N, 1, H, W]` or `[N, 3, H, W]`, `f32` multiples of 1/255; labels are `[N]`.
///
/// # Errors
/// [`Error::InexactPixel`] for a value that is no multiple of 1/255 in `[0, 1]`, [`Error::InvalidParameter`] for another
/// shape, [`Error::Candle`], and those of [`InMemory::new`].
pub fn from_candle(dataset: &vision::Dataset, classes: &[String], source: &str) -> Result<Splits<InMemory>> {
    let split = |name: &str, images: &Tensor, labels: &Tensor| -> Result<Arc<InMemory>> {
        let (pixels, height, width) = to_pixels(images)?;
        let labels = labels.to_dtype(DType::U32).and_then(|labels| labels.to_vec1::<u32>());
        let labels = labels.map_err(Error::candle("cannot read the labels"))?;
        Ok(Arc::new(InMemory::new(
            pixels,
            height,
            width,
            labels,
            classes.to_vec(),
            format!("{source} {name}"),
        )?))
    };
    Ok(Splits {
        train: split("train", &dataset.train_images, &dataset.train_labels)?,
        val: None,
        test: split("test", &dataset.test_images, &dataset.test_labels)?,
    })
}

fn digits() -> Vec<String> {
    (0..10).map(|digit| digit.to_string()).collect()
}

/// The pixels `[N, H, W, 3]`, with their height and width.
fn to_pixels(images: &Tensor) -> Result<(Vec<u8>, usize, usize)> {
    let (channels, height, width) = match *images.dims() {
        [_, 784] => (1, 28, 28),
        [_, channels @ (1 | CHANNELS), height, width] => (channels, height, width),
        _ => {
            let expected = "[N, 784], [N, 1, H, W] or [N, 3, H, W]";
            let got = format!("{:?}", images.dims());
            return Err(Error::InvalidParameter {
                name: "shape of the images",
                expected,
                got,
            });
        }
    };
    let values = images
        .flatten_all()
        .and_then(|flat| flat.to_dtype(DType::F32))
        .and_then(|flat| flat.to_vec1::<f32>());
    let values = values.map_err(Error::candle("cannot read the images"))?;
    let image_len = (channels * height * width).max(1);
    let to_byte = |(i, value): (usize, &f32)| {
        // A byte b was divided by 255 in f32, or multiplied by the rounded inverse: one unit in the last place apart.
        let byte = (value * 255.0).round();
        let exact = (0.0..=255.0).contains(&byte) && (value - byte / 255.0).abs() <= f32::EPSILON;
        if exact {
            Ok(byte as u8)
        } else {
            Err(Error::InexactPixel {
                index: i / image_len,
                got: *value,
            })
        }
    };
    let bytes = values.iter().enumerate().map(to_byte).collect::<Result<Vec<u8>>>()?;
    if channels == 1 {
        let padding = if (height, width) == (28, 28) { 2 } else { 0 };
        let pixels = idx::grey_to_rgb(&bytes, height, width, padding);
        return Ok((pixels, height + 2 * padding, width + 2 * padding));
    }
    let plane = height * width;
    let mut pixels = Vec::with_capacity(bytes.len());
    for image in bytes.chunks_exact(image_len) {
        for position in 0..plane {
            pixels.extend((0..CHANNELS).map(|channel| image[channel * plane + position]));
        }
    }
    Ok((pixels, height, width))
}
