//! Grad-CAM: where in an image a network finds the evidence for a class.

use candle_core::{DType, Device, Tensor, Var};
use image::{ExtendedColorType, ImageEncoder};
use kestrel_kernels::tape;
use kestrel_models::Model;

use crate::{Error, Result};

/// An image's last convolutional feature map `A` and the logits that follow from it.
///
/// # Source
/// Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", equations 1 and 2. The golden
/// file `grad_cam` compares the heatmaps of the three networks with those of hooks in PyTorch.
pub struct GradCam {
    map: Var,
    logits: Tensor,
}

impl GradCam {
    /// Runs the network on one image, in evaluation. Freeze its parameters first, or each heatmap costs their gradients too.
    ///
    /// # Shapes
    /// `image [1, 3, H, W]`, normalised.
    ///
    /// # Errors
    /// Those of [`Model::feature_map`], and [`Error::InvalidConfig`] where there is not one image.
    pub fn new(model: &dyn Model, image: &Tensor) -> Result<Self> {
        let images = image.dim(0)?;
        if images != 1 {
            return Err(Error::InvalidConfig {
                field: "images",
                expected: "one",
                got: images.to_string(),
            });
        }
        let map = Var::from_tensor(&model.feature_map(image)?)?;
        let logits = model.classify_map(&map)?;
        Ok(Self { map, logits })
    }

    /// `[1, num_classes]`, those of [`Model::forward`].
    pub fn logits(&self) -> &Tensor {
        &self.logits
    }

    /// The evidence for a class: `relu(Σ_k w_k A_k) / max`, where `w_k` is the mean over the map of the gradient of the class's
    /// logit at channel `k`, and `max` is the largest value, unless that is 0.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for a class that is none of the network's, [`Error::NoMapGradient`] where the network keeps no
    /// graph.
    pub fn heatmap(&self, class: usize) -> Result<Heatmap> {
        let classes = self.logits.dim(1)?;
        if class >= classes {
            return Err(Error::InvalidConfig {
                field: "class",
                expected: "less than the number of classes",
                got: format!("{class} of {classes}"),
            });
        }
        let logit = self.logits.narrow(1, class, 1)?.sum_all()?;
        let gradients = tape::backward(&logit)?;
        let gradient = gradients.get(&self.map).ok_or(Error::NoMapGradient)?;
        let (_, height, width, channels) = self.map.dims4()?;
        let values = |t: &Tensor| -> Result<Vec<f64>> {
            let t = t.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
            Ok(t.flatten_all()?.to_vec1()?)
        };
        Ok(Heatmap::of(
            &values(&self.map)?,
            &values(gradient)?,
            (height, width, channels),
        ))
    }
}

/// A number from 0 to 1 for each place of a feature map: how much of it speaks for a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Heatmap {
    height: usize,
    width: usize,
    values: Vec<f32>,
}

impl Heatmap {
    /// Of a map and the gradient at it, both `[height, width, channels]`.
    fn of(map: &[f64], gradient: &[f64], (height, width, channels): (usize, usize, usize)) -> Self {
        let places = (height * width) as f64;
        let mut weights = vec![0.0; channels];
        for place in gradient.chunks_exact(channels.max(1)) {
            weights.iter_mut().zip(place).for_each(|(sum, g)| *sum += g / places);
        }
        let evidence = |place: &[f64]| place.iter().zip(&weights).map(|(a, w)| a * w).sum::<f64>().max(0.0);
        let values: Vec<f64> = map.chunks_exact(channels.max(1)).map(evidence).collect();
        let max = values.iter().copied().fold(0.0, f64::max);
        let scale = if max > 0.0 { 1.0 / max } else { 0.0 };
        Self {
            height,
            width,
            values: values.iter().map(|value| (value * scale) as f32).collect(),
        }
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// `[height, width]`, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The heatmap of another size, by bilinear interpolation between the middles of its places.
    ///
    /// # Shapes
    /// → `[height, width]`, row by row.
    ///
    /// # Source
    /// `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`, held to it by the golden file `grad_cam`.
    pub fn resized(&self, height: usize, width: usize) -> Vec<f32> {
        let rows = between(self.height, height);
        let columns = between(self.width, width);
        let mut resized = Vec::with_capacity(height * width);
        for (above, below, down) in rows {
            let row = |y: usize| &self.values[y * self.width..(y + 1) * self.width];
            let (above, below) = (row(above), row(below));
            resized.extend(columns.iter().map(|&(left, right, along)| {
                let across = |row: &[f32]| row[left] + (row[right] - row[left]) * along;
                across(above) + (across(below) - across(above)) * down
            }));
        }
        resized
    }

    /// The heatmap of another size as a grey PNG, 0 black and 1 white.
    ///
    /// # Errors
    /// [`Error::Picture`] where it cannot be encoded, as where a side is 0.
    pub fn png(&self, height: usize, width: usize) -> Result<Vec<u8>> {
        let grey = |value: f32| (255.0 * value).round().clamp(0.0, 255.0) as u8;
        let pixels: Vec<u8> = self.resized(height, width).into_iter().map(grey).collect();
        let size = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        let mut png = Vec::new();
        image::codecs::png::PngEncoder::new(&mut png)
            .write_image(&pixels, size(width), size(height), ExtendedColorType::L8)
            .map_err(|source| Error::Picture {
                path: "a heatmap".into(),
                source,
            })?;
        Ok(png)
    }
}

/// For each of `new` places the two of `old` that it lies between, and how far it is from the first to the second.
fn between(old: usize, new: usize) -> Vec<(usize, usize, f32)> {
    let scale = old as f64 / new as f64;
    let last = old.saturating_sub(1);
    (0..new)
        .map(|i| {
            let at = ((i as f64 + 0.5) * scale - 0.5).clamp(0.0, last as f64);
            let first = at as usize;
            (first, (first + 1).min(last), (at - first as f64) as f32)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use kestrel_models::Params;

    use super::*;

    /// A network without convolutions, whose map is its image, `[1, h, w, 3]`, and whose logits are sums over it: of each
    /// channel, class 0 with the weights 1, 2, -1, class 1 with their negatives.
    struct Sums(Params);

    impl Model for Sums {
        fn forward(&self, images: &Tensor, _: kestrel_models::Mode) -> kestrel_models::Result<Tensor> {
            self.classify_map(&self.feature_map(images)?)
        }

        fn feature_map(&self, images: &Tensor) -> kestrel_models::Result<Tensor> {
            Ok(images.permute((0, 2, 3, 1))?.contiguous()?)
        }

        fn classify_map(&self, map: &Tensor) -> kestrel_models::Result<Tensor> {
            let weights = Tensor::new(&[[1f32, -1.0], [2.0, -2.0], [-1.0, 1.0]], map.device())?;
            Ok(map.sum((1, 2))?.matmul(&weights)?)
        }

        fn params(&self) -> &Params {
            &self.0
        }

        fn num_classes(&self) -> usize {
            2
        }
    }

    fn cam() -> GradCam {
        // Red, green, blue of a picture of 1 x 2 pixels.
        let image = Tensor::new(&[[[[1f32, 0.0]], [[2.0, 1.0]], [[1.0, 4.0]]]], &Device::Cpu).unwrap();
        GradCam::new(&Sums(Params::new(0)), &image).unwrap()
    }

    #[test]
    fn a_heatmap_by_hand() {
        // The gradient is the weights at every place: 1 + 4 - 1 = 4 on the left, 0 + 2 - 4 = -2 on the right.
        let cam = cam();
        assert_eq!(cam.logits().to_vec2::<f32>().unwrap(), [[2.0, -2.0]]);
        let heatmap = cam.heatmap(0).unwrap();
        assert_eq!((heatmap.height(), heatmap.width()), (1, 2));
        assert_eq!(heatmap.values(), [1.0, 0.0]);
        // Of the other class the same with the opposite sign, and a graph is good for several classes.
        assert_eq!(cam.heatmap(1).unwrap().values(), [0.0, 1.0]);
        assert_eq!(cam.heatmap(0).unwrap(), heatmap);
    }

    #[test]
    fn what_has_no_heatmap_is_an_error() {
        let error = cam().heatmap(2).map(drop).unwrap_err();
        assert!(error.to_string().contains("2 of 2"), "{error}");
        let two = Tensor::zeros((2, 3, 1, 1), DType::F32, &Device::Cpu).unwrap();
        assert!(GradCam::new(&Sums(Params::new(0)), &two).is_err());
    }

    #[test]
    fn without_evidence_all_is_0() {
        let heatmap = Heatmap::of(&[1.0, 2.0], &[-1.0, -1.0], (1, 2, 1));
        assert_eq!(heatmap.values(), [0.0, 0.0]);
    }

    #[test]
    fn values_are_interpolated_between_the_middles() {
        let heatmap = Heatmap {
            height: 1,
            width: 2,
            values: vec![0.0, 1.0],
        };
        assert_eq!(heatmap.resized(2, 4), [0.0, 0.25, 0.75, 1.0, 0.0, 0.25, 0.75, 1.0]);
        assert_eq!(heatmap.resized(1, 1), [0.5]);
        assert_eq!(heatmap.resized(1, 2), heatmap.values());
        assert!(heatmap.resized(0, 3).is_empty());
        let png = image::load_from_memory(&heatmap.png(1, 4).unwrap()).unwrap();
        assert_eq!(png.to_luma8().into_raw(), [0, 64, 191, 255]);
        assert!(heatmap.png(0, 4).is_err());
    }
}
