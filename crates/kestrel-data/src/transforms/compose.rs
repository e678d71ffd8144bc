//! `Compose`: a pipeline of transforms, run on one image at a time.

use std::fmt;
use std::sync::Arc;

use kestrel_kernels::pixels::RgbToPlanes;

use super::key::{SampleKey, StepKey};
use super::{Normalize, RandomHorizontalFlip, Transform, TransformSpec};
use crate::error::{Error, Result};
use crate::pixels::{CHANNELS, Image, Region};

/// Pixel transforms, then `ToTensor`, then perhaps `Normalize`.
#[derive(Clone)]
pub struct Compose {
    transforms: Vec<(StepKey, Arc<dyn Transform>)>,
    normalize: Option<Normalize>,
    planes: RgbToPlanes,
}

impl fmt::Debug for Compose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Compose").field(&self.specs()).finish()
    }
}

impl Default for Compose {
    fn default() -> Self {
        Self::new()
    }
}

impl Compose {
    /// The pipeline that is `ToTensor` alone: `f32` in `[0, 1]`.
    pub fn new() -> Self {
        Self {
            transforms: Vec::new(),
            normalize: None,
            planes: RgbToPlanes::new([0.0; CHANNELS], [1.0; CHANNELS]),
        }
    }

    /// Adds a pixel transform after those already there, before `ToTensor`.
    pub fn then(mut self, transform: impl Transform + 'static) -> Self {
        let name = transform.name();
        let earlier = self.transforms.iter().filter(|(_, other)| other.name() == name).count();
        self.transforms.push((StepKey::new(name, earlier), Arc::new(transform)));
        self
    }

    /// Normalises after `ToTensor`.
    pub fn normalize(self, normalize: Normalize) -> Self {
        Self {
            normalize: Some(normalize),
            planes: RgbToPlanes::new(normalize.mean(), normalize.std()),
            ..self
        }
    }

    /// The mean and standard deviation that the pipeline normalises with.
    pub fn normalization(&self) -> Option<Normalize> {
        self.normalize
    }

    /// The description of every step, in order.
    pub fn specs(&self) -> Vec<TransformSpec> {
        let pixel = self.transforms.iter().map(|(_, t)| t.spec());
        pixel
            .chain([TransformSpec::ToTensor])
            .chain(self.normalize.map(TransformSpec::Normalize))
            .collect()
    }

    /// Builds the pipeline that `specs` describe.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a value out of range, for a step in the wrong place (pixel transforms come first,
    /// then `ToTensor`, then at most one `Normalize`), and for [`TransformSpec::Custom`].
    pub fn from_specs(specs: &[TransformSpec]) -> Result<Self> {
        let misplaced = |got: &TransformSpec| Error::InvalidParameter {
            name: "transforms",
            expected: "pixel transforms, then ToTensor, then at most one Normalize",
            got: format!("{got:?} out of place"),
        };
        let mut compose = Self::new();
        let mut is_tensor = false;
        for spec in specs {
            compose = match spec {
                TransformSpec::Normalize(normalize) if is_tensor && compose.normalize.is_none() => {
                    normalize.check()?;
                    compose.normalize(*normalize)
                }
                TransformSpec::ToTensor if !is_tensor => {
                    is_tensor = true;
                    compose
                }
                TransformSpec::RandomHorizontalFlip(flip) if !is_tensor => {
                    compose.then(RandomHorizontalFlip::new(flip.p())?)
                }
                TransformSpec::RandomCrop(crop) if !is_tensor => {
                    crop.check()?;
                    compose.then(*crop)
                }
                TransformSpec::Resize(resize) if !is_tensor => {
                    resize.check()?;
                    compose.then(*resize)
                }
                TransformSpec::CenterCrop(crop) if !is_tensor => {
                    crop.check()?;
                    compose.then(*crop)
                }
                TransformSpec::RandomResizedCrop(crop) if !is_tensor => {
                    crop.check()?;
                    compose.then(*crop)
                }
                TransformSpec::Custom { description } => {
                    return Err(Error::InvalidParameter {
                        name: "transforms",
                        expected: "transforms that this crate knows",
                        got: description.clone(),
                    });
                }
                other => return Err(misplaced(other)),
            };
        }
        if !is_tensor {
            let (name, expected) = ("transforms", "a ToTensor step");
            return Err(Error::InvalidParameter {
                name,
                expected,
                got: "none".into(),
            });
        }
        Ok(compose)
    }

    /// The part of an image of this size that [`Self::apply`] with the same key will look at; none for all of it.
    pub fn region(&self, height: usize, width: usize, key: SampleKey) -> Option<Region> {
        let (step, first) = self.transforms.first()?;
        first.region(height, width, &mut key.rng(*step))
    }

    /// Runs the pixel transforms; geometry only moves the image's window.
    ///
    /// # Errors
    /// The first transform's that fails.
    pub fn apply(&self, image: &mut Image<'_>, key: SampleKey) -> Result<()> {
        self.transforms
            .iter()
            .try_for_each(|(step, transform)| transform.apply(image, &mut key.rng(*step)))
    }

    /// `ToTensor` and `Normalize`: writes the image into `out`, reading each pixel once.
    ///
    /// # Shapes
    /// `out` is `[3, H, W]`.
    ///
    /// # Errors
    /// [`Error::PixelCount`] if `out` has not `3 * H * W` values.
    ///
    /// # Source
    /// `torchvision.transforms.{ToTensor, Normalize}`, bit for bit (`tests/golden/normalize.safetensors`).
    pub fn write(&self, image: &Image<'_>, out: &mut [f32]) -> Result<()> {
        let (height, width) = (image.height(), image.width());
        let plane = height * width;
        if out.len() != CHANNELS * plane {
            return Err(Error::PixelCount {
                path: "tensor".into(),
                expected: CHANNELS * plane,
                got: out.len(),
            });
        }
        let written = self.planes.write(image.view(), out);
        written.map_err(Error::kernel("cannot write an image into a batch"))
    }
}
