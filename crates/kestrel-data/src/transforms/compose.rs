//! `Compose`: a pipeline of transforms, run on one image at a time.

use std::fmt;
use std::sync::Arc;

use kestrel_kernels::random::KeyedRng;

use super::normalize::Table;
use super::{Normalize, RandomHorizontalFlip, Transform, TransformSpec};
use crate::error::{Error, Result};
use crate::pixels::{CHANNELS, Image};

/// Pixel transforms, then `ToTensor`, then perhaps `Normalize`.
#[derive(Clone)]
pub struct Compose {
    transforms: Vec<Arc<dyn Transform>>,
    normalize: Option<Normalize>,
    table: Table,
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
            table: Table::new(None),
        }
    }

    /// Adds a pixel transform after those already there, before `ToTensor`.
    pub fn then(mut self, transform: impl Transform + 'static) -> Self {
        self.transforms.push(Arc::new(transform));
        self
    }

    /// Normalises after `ToTensor`.
    pub fn normalize(self, normalize: Normalize) -> Self {
        Self {
            normalize: Some(normalize),
            table: Table::new(Some(normalize)),
            ..self
        }
    }

    /// The mean and standard deviation that the pipeline normalises with.
    pub fn normalization(&self) -> Option<Normalize> {
        self.normalize
    }

    /// The description of every step, in order.
    pub fn specs(&self) -> Vec<TransformSpec> {
        let pixel = self.transforms.iter().map(|t| t.spec());
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

    /// Runs the pixel transforms; geometry only moves the image's window.
    ///
    /// # Errors
    /// The first transform's that fails.
    pub fn apply(&self, image: &mut Image<'_>, rng: &mut KeyedRng) -> Result<()> {
        self.transforms
            .iter()
            .try_for_each(|transform| transform.apply(image, rng))
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
        if plane == 0 {
            return Ok(());
        }
        // A channel at a time: planes of 32x32 lie 4 KiB apart, and writing to all three at once stalls on that.
        for (channel, plane) in out.chunks_exact_mut(plane).enumerate() {
            let table = self.table.channel(channel);
            for (y, row) in plane.chunks_exact_mut(width).enumerate() {
                let Some(span) = image.row(y) else {
                    row.fill(table[0]);
                    continue;
                };
                let (pixels, _) = span.source.as_chunks::<CHANNELS>();
                let (before, rest) = row.split_at_mut(span.start);
                let (visible, after) = rest.split_at_mut(pixels.len());
                before.fill(table[0]);
                after.fill(table[0]);
                let put = |(value, pixel): (&mut f32, &[u8; CHANNELS])| *value = table[usize::from(pixel[channel])];
                if image.flipped {
                    visible.iter_mut().zip(pixels.iter().rev()).for_each(put);
                } else {
                    visible.iter_mut().zip(pixels).for_each(put);
                }
            }
        }
        Ok(())
    }
}
