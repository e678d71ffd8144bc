//! `Compose`: a pipeline of transforms, run on one image at a time.

use std::fmt;
use std::mem::MaybeUninit;
use std::sync::Arc;

use kestrel_kernels::pixels::{Placement, RgbToPlanes};

use super::key::{SampleKey, StepKey};
use super::mix::Mixture;
use super::{
    AlternatingHorizontalFlip, BatchTransform, Normalize, RandomHorizontalFlip, TensorTransform, Transform,
    TransformSpec, View,
};
use crate::error::{Error, Result};
use crate::loader::NotResident;
use crate::pixels::{Axes, CHANNELS, Image, Region};

/// A stage's steps, each with what keys its generator.
type Steps<T> = Vec<(StepKey, Arc<T>)>;

/// Pixel transforms, then `ToTensor`, then perhaps `Normalize`, then tensor transforms, then batch transforms.
#[derive(Clone)]
pub struct Compose {
    transforms: Steps<dyn Transform>,
    normalize: Option<Normalize>,
    planes: RgbToPlanes,
    on_tensors: Steps<dyn TensorTransform>,
    on_batches: Steps<dyn BatchTransform>,
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
            on_tensors: Vec::new(),
            on_batches: Vec::new(),
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

    /// Adds a transform of the normalised image after those already there.
    pub fn then_on_tensor(mut self, transform: impl TensorTransform + 'static) -> Self {
        let name = transform.name();
        let earlier = self.on_tensors.iter().filter(|(_, other)| other.name() == name).count();
        self.on_tensors.push((StepKey::new(name, earlier), Arc::new(transform)));
        self
    }

    /// Adds a transform of whole batches after those already there.
    pub fn then_on_batch(mut self, transform: impl BatchTransform + 'static) -> Self {
        let name = transform.name();
        let earlier = self.on_batches.iter().filter(|(_, other)| other.name() == name).count();
        self.on_batches.push((StepKey::new(name, earlier), Arc::new(transform)));
        self
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
            .chain(self.on_tensors.iter().map(|(_, t)| t.spec()))
            .chain(self.on_batches.iter().map(|(_, t)| t.spec()))
            .collect()
    }

    /// Builds the pipeline that `specs` describe.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a value out of range, for a step in the wrong place (pixel transforms come first,
    /// then `ToTensor`, then at most one `Normalize`, then transforms of tensors, then of batches), and for
    /// [`TransformSpec::Custom`].
    pub fn from_specs(specs: &[TransformSpec]) -> Result<Self> {
        let mut compose = Self::new();
        let mut stage = Stage::Pixels;
        for spec in specs {
            let (of, added) = compose.with(spec)?;
            let misplaced = match of {
                // The first of its kind, and there is one only.
                Stage::ToTensor => stage != Stage::Pixels,
                Stage::Normalize => stage != Stage::ToTensor,
                Stage::Pixels => stage != Stage::Pixels,
                Stage::Tensors | Stage::Batches => stage == Stage::Pixels || of < stage,
            };
            if misplaced {
                return Err(Error::InvalidParameter {
                    name: "transforms",
                    expected: "transforms of pixels, then ToTensor, then at most one Normalize, then RandomErasing, then \
                               MixUp or CutMix",
                    got: format!("{spec:?} out of place"),
                });
            }
            (compose, stage) = (added, of);
        }
        if stage == Stage::Pixels {
            let (name, expected) = ("transforms", "a ToTensor step");
            return Err(Error::InvalidParameter {
                name,
                expected,
                got: "none".into(),
            });
        }
        Ok(compose)
    }

    /// The pipeline with one more step, and the stage that the step belongs to.
    fn with(self, spec: &TransformSpec) -> Result<(Stage, Self)> {
        Ok(match spec {
            TransformSpec::Resize(resize) => (Stage::Pixels, resize.check().map(|()| self.then(*resize))?),
            TransformSpec::CenterCrop(crop) => (Stage::Pixels, crop.check().map(|()| self.then(*crop))?),
            TransformSpec::RandomCrop(crop) => (Stage::Pixels, crop.check().map(|()| self.then(*crop))?),
            TransformSpec::RandomResizedCrop(crop) => (Stage::Pixels, crop.check().map(|()| self.then(*crop))?),
            TransformSpec::RandomHorizontalFlip(flip) => {
                (Stage::Pixels, self.then(RandomHorizontalFlip::new(flip.p())?))
            }
            TransformSpec::ColorJitter(jitter) => (Stage::Pixels, jitter.check().map(|()| self.then(*jitter))?),
            TransformSpec::RandAugment(augment) => (Stage::Pixels, augment.check().map(|()| self.then(*augment))?),
            TransformSpec::TrivialAugmentWide(augment) => {
                (Stage::Pixels, augment.check().map(|()| self.then(*augment))?)
            }
            TransformSpec::AlternatingHorizontalFlip => (Stage::Pixels, self.then(AlternatingHorizontalFlip)),
            TransformSpec::ToTensor => (Stage::ToTensor, self),
            TransformSpec::Normalize(normalize) => (
                Stage::Normalize,
                normalize.check().map(|()| self.normalize(*normalize))?,
            ),
            TransformSpec::RandomErasing(erasing) => {
                (Stage::Tensors, erasing.check().map(|()| self.then_on_tensor(*erasing))?)
            }
            TransformSpec::MixUp(mix_up) => (Stage::Batches, mix_up.check().map(|()| self.then_on_batch(*mix_up))?),
            TransformSpec::CutMix(cut_mix) => (Stage::Batches, cut_mix.check().map(|()| self.then_on_batch(*cut_mix))?),
            TransformSpec::RandomChoice(choice) => (
                Stage::Batches,
                choice.check().map(|()| self.then_on_batch(choice.clone()))?,
            ),
            TransformSpec::Custom { description } => {
                return Err(Error::InvalidParameter {
                    name: "transforms",
                    expected: "transforms that this crate knows",
                    got: description.clone(),
                });
            }
        })
    }

    /// The part of an image of this size that [`Self::apply`] with the same key will look at; none for all of it.
    pub fn region(&self, height: usize, width: usize, key: SampleKey) -> Option<Region> {
        let (step, first) = self.transforms.first()?;
        first.region(height, width, &mut key.rng(*step))
    }

    /// Which part of a picture of this size comes out of the pixel transforms, where these draw nothing, as in an evaluation.
    pub fn view(&self, height: usize, width: usize) -> View {
        let all = View::all(height, width);
        self.transforms
            .iter()
            .fold(all, |view, (_, transform)| transform.view(view))
    }

    /// Runs the pixel transforms; geometry only moves the image's window.
    ///
    /// # Errors
    /// The first transform's that fails.
    pub fn apply(&self, image: &mut Image<'_>, key: SampleKey) -> Result<()> {
        self.transforms
            .iter()
            .try_for_each(|(step, transform)| transform.apply_in_run(image, key.draws(*step)))
    }

    /// How image number `index` of those on a device becomes one of a batch: what [`Self::apply`], [`Self::write`] and
    /// [`Self::apply_to_tensor`] do with the same key. Also the colours of its paddings, which are the same for all images.
    ///
    /// # Errors
    /// [`NotResident::Transform`] for the first step that cannot be said in rows and columns, and the first transform's that
    /// fails.
    pub(crate) fn place(
        &self,
        size: (usize, usize),
        index: usize,
        key: SampleKey,
    ) -> Result<(Placement, Vec<[u8; CHANNELS]>)> {
        let host_only = |step: &str| NotResident::Transform { step: step.to_owned() };
        let mut axes = Axes::new(size.0, size.1)?;
        for (step, transform) in &self.transforms {
            let placed = transform.place(&mut axes, key.draws(*step));
            placed.ok_or_else(|| host_only(transform.name()))??;
        }
        let size = axes.size();
        let fills = axes.fills().to_vec();
        let mut placement = axes.into_placement(index);
        for (at, (step, transform)) in self.on_tensors.iter().enumerate() {
            let erasure = transform.erasure(size, &mut key.rng(*step));
            // The kernel overwrites one rectangle.
            let erasure = erasure.filter(|_| at == 0).ok_or_else(|| host_only(transform.name()))?;
            placement.erased = erasure?;
        }
        match self.on_batches.first() {
            None => Ok((placement, fills)),
            Some((_, transform)) => Err(host_only(transform.name()).into()),
        }
    }

    /// The table of `ToTensor` and `Normalize`.
    pub(crate) fn planes(&self) -> &RgbToPlanes {
        &self.planes
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
        check_len(image, out.len())?;
        let written = self.planes.write(image.view(), out);
        written.map_err(Error::kernel("cannot write an image into a batch"))
    }

    /// [`Self::write`] into memory that holds nothing yet; gives that memory, written.
    ///
    /// # Errors
    /// Those of [`Self::write`].
    pub fn write_new<'a>(&self, image: &Image<'_>, out: &'a mut [MaybeUninit<f32>]) -> Result<&'a mut [f32]> {
        check_len(image, out.len())?;
        let written = self.planes.write_new(image.view(), out);
        written.map_err(Error::kernel("cannot write an image into a batch"))
    }

    /// Runs the transforms of the normalised image, which [`Self::write`] has written.
    ///
    /// # Shapes
    /// `image` is `[3, H, W]`, `size` is `(H, W)`.
    ///
    /// # Errors
    /// The first transform's that fails.
    pub fn apply_to_tensor(&self, image: &mut [f32], size: (usize, usize), key: SampleKey) -> Result<()> {
        self.on_tensors
            .iter()
            .try_for_each(|(step, transform)| transform.apply(image, size, &mut key.rng(*step)))
    }

    /// Whether batches are transformed too, so that they get a probability for each class.
    pub fn mixes_batches(&self) -> bool {
        !self.on_batches.is_empty()
    }

    /// Runs the transforms of a whole batch; `key.index` is the batch's number in the epoch.
    ///
    /// # Errors
    /// [`Error::PixelCount`] if `images` is not as long as `shape` says, and the first transform's that fails.
    pub fn apply_to_batch(
        &self,
        images: &mut [f32],
        shape: [usize; 4],
        targets: &mut [f32],
        key: SampleKey,
    ) -> Result<()> {
        let expected = shape.iter().product();
        if images.len() != expected {
            return Err(Error::PixelCount {
                path: "batch".into(),
                expected,
                got: images.len(),
            });
        }
        let mut batch = Mixture { images, shape, targets };
        self.on_batches
            .iter()
            .try_for_each(|(step, transform)| transform.apply(&mut batch, &mut key.rng(*step)))
    }
}

/// Refuses a tensor of `len` values that is not an image's.
fn check_len(image: &Image<'_>, len: usize) -> Result<()> {
    let expected = CHANNELS * image.height() * image.width();
    if len == expected {
        return Ok(());
    }
    Err(Error::PixelCount {
        path: "tensor".into(),
        expected,
        got: len,
    })
}

/// The stages of a pipeline, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Pixels,
    ToTensor,
    Normalize,
    Tensors,
    Batches,
}
