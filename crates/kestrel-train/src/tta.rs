//! Test-time augmentation: logits averaged over views of an image.

use candle_core::Tensor;
use kestrel_models::{Mode, Model};

use crate::Result;

/// Which views of each image are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tta {
    /// The image alone.
    #[default]
    None,
    /// The image and its mirror image.
    Flip,
    /// These two count half; the other half are the image shifted by a pixel to the lower right and to the upper left,
    /// with their mirror images. What comes in at an edge is the reflection of what is there.
    MultiCrop,
}

impl Tta {
    /// The logits of a batch in evaluation mode, averaged over the views; without a graph.
    ///
    /// # Shapes
    /// `images [N, 3, H, W]` → `[N, num_classes]`; `MultiCrop` needs `H` and `W` of at least 2.
    ///
    /// # Errors
    /// Where the model fails.
    ///
    /// # Source
    /// The evaluation of Keller Jordan's airbench (levels 1 and 2 of its `tta_level`).
    pub fn logits(self, model: &dyn Model, images: &Tensor) -> Result<Tensor> {
        // Detached, so that no graph is kept.
        let plain = |images: &Tensor| -> Result<Tensor> { Ok(model.forward(images, Mode::Eval)?.detach()) };
        let mirrored = |images: &Tensor| -> Result<Tensor> { mean(&plain(images)?, &plain(&flip(images)?)?) };
        match self {
            Self::None => plain(images),
            Self::Flip => mirrored(images),
            Self::MultiCrop => {
                let centre = mirrored(images)?;
                let [first, last] = shifted(images)?;
                mean(&centre, &mean(&mirrored(&first)?, &mirrored(&last)?)?)
            }
        }
    }
}

fn mean(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(((a + b)? * 0.5)?)
}

/// The mirror image.
fn flip(images: &Tensor) -> Result<Tensor> {
    let width = images.dim(3)? as u32;
    let order: Vec<u32> = (0..width).rev().collect();
    Ok(images
        .contiguous()?
        .index_select(&Tensor::new(order, images.device())?, 3)?)
}

/// The first and the last crop of the image with an edge of one reflected pixel.
fn shifted(images: &Tensor) -> Result<[Tensor; 2]> {
    let mut padded = images.contiguous()?;
    for dim in [2, 3] {
        let size = images.dim(dim)?;
        let before = padded.narrow(dim, 1, 1)?;
        let after = padded.narrow(dim, size - 2, 1)?;
        padded = Tensor::cat(&[&before, &padded, &after], dim)?;
    }
    let (height, width) = (images.dim(2)?, images.dim(3)?);
    let crop =
        |start| -> Result<Tensor> { Ok(padded.narrow(2, start, height)?.narrow(3, start, width)?.contiguous()?) };
    Ok([crop(0)?, crop(2)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use kestrel_models::Params;

    /// Logits that are the image's corner pixels.
    struct Corners(Params);

    impl Model for Corners {
        fn forward(&self, images: &Tensor, _: Mode) -> kestrel_models::Result<Tensor> {
            let (n, _, height, width) = images.dims4()?;
            let at = |y, x| {
                images
                    .narrow(1, 0, 1)?
                    .narrow(2, y, 1)?
                    .narrow(3, x, 1)?
                    .reshape((n, 1))
            };
            let corners = [at(0, 0)?, at(0, width - 1)?, at(height - 1, 0)?];
            Ok(Tensor::cat(&corners, 1)?)
        }

        fn params(&self) -> &Params {
            &self.0
        }

        fn num_classes(&self) -> usize {
            3
        }
    }

    fn logits(tta: Tta) -> Vec<f32> {
        // Element (y, x) of the first channel is 10 y + x.
        let pixels: Vec<f32> = (0..3)
            .flat_map(|_| (0..3).flat_map(|y| (0..4).map(move |x| (10 * y + x) as f32)))
            .collect();
        let images = Tensor::from_vec(pixels, (1, 3, 3, 4), &Device::Cpu)
            .unwrap()
            .to_dtype(DType::F32)
            .unwrap();
        let logits = tta.logits(&Corners(Params::new(0)), &images).unwrap();
        logits.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn views_are_what_they_are_said_to_be() {
        assert_eq!(logits(Tta::None), [0.0, 3.0, 20.0]);
        assert_eq!(logits(Tta::Flip), [1.5, 1.5, 21.5]);
        let got = logits(Tta::MultiCrop);
        // First crop: rows 1,0,1 and columns 1,0,1,2: corners (1,1), (1,2), (1,1). Last: rows 1,2,1, columns 1,2,3,2.
        let shifted = (11.0 + 12.0) / 2.0;
        assert_eq!(
            got,
            [(1.5 + shifted) / 2.0, (1.5 + shifted) / 2.0, (21.5 + shifted) / 2.0]
        );
    }
}
