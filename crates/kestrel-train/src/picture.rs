//! A picture that somebody hands in: from the bytes of a file to what a network takes.

use std::path::Path;

use candle_core::{Device, Tensor};
use kestrel_data::decode::decode_within;
use kestrel_data::pixels::CHANNELS;
use kestrel_data::transforms::{Compose, SampleKey, View};

use crate::Result;

/// A decoded and transformed picture, one image of a loader's batch.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Height and width in pixels, as stored.
    pub size: (usize, usize),
    /// What of it the network sees.
    pub view: View,
    /// `[1, 3, H, W]`, normalised.
    pub image: Tensor,
}

impl Picture {
    /// Decodes the bytes of an image file of at most `max_pixels` pixels and runs the transforms of an evaluation; `path` is
    /// for errors.
    ///
    /// # Errors
    /// Those of [`decode_within`], and of the transforms.
    pub fn read(bytes: &[u8], path: &Path, max_pixels: u64, transforms: &Compose, device: &Device) -> Result<Self> {
        // The loader's for the first image of the first epoch; an evaluation draws nothing.
        let key = SampleKey {
            seed: 0,
            epoch: 0,
            index: 0,
        };
        let mut image = decode_within(bytes, path, max_pixels, &mut |height, width| {
            transforms.region(height, width, key)
        })?;
        let size = (image.height(), image.width());
        transforms.apply(&mut image, key)?;
        let (height, width) = (image.height(), image.width());
        let mut values = vec![0.0; CHANNELS * height * width];
        transforms.write(&image, &mut values)?;
        transforms.apply_to_tensor(&mut values, (height, width), key)?;
        Ok(Self {
            size,
            view: transforms.view(size.0, size.1),
            image: Tensor::from_vec(values, (1, CHANNELS, height, width), device)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kestrel_data::datasets::ImageList;
    use kestrel_data::loader::{DataLoader, LoaderConfig};
    use kestrel_data::transforms::{CenterCrop, Normalize, Resize};

    use super::*;

    #[test]
    fn a_picture_is_an_image_of_a_batch() {
        let pixels: Vec<u8> = (0..40u32 * 60 * 3).map(|i| (i * i % 251) as u8).collect();
        let picture = image::RgbImage::from_raw(60, 40, pixels).unwrap();
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
        let bytes = bytes.into_inner();
        let normalize = Normalize::new([0.5; 3], [0.25; 3]).unwrap();
        // The second needs only a part of the file's pixels.
        let resized = Compose::new().then(Resize::new(32)).then(CenterCrop::new(32));
        for transforms in [resized, Compose::new().then(CenterCrop::new(32))] {
            let transforms = transforms.normalize(normalize);
            let read = |cap| Picture::read(&bytes, "the picture".as_ref(), cap, &transforms, &Device::Cpu);
            let got = read(40 * 60).unwrap();
            assert_eq!(got.size, (40, 60));
            assert_eq!(got.view, transforms.view(40, 60));
            let list = Arc::new(ImageList::new(Vec::new()).with_bytes("a", bytes.clone()));
            let loader = DataLoader::new(list, transforms.clone(), LoaderConfig::default()).unwrap();
            let want = loader.epoch(0).next().unwrap().unwrap().images;
            assert_eq!(got.image.dims(), want.dims());
            let all = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(all(&got.image), all(&want));
            let error = read(40 * 60 - 1).unwrap_err().to_string();
            assert!(error.starts_with("the picture is too large"), "{error}");
        }
    }
}
