//! `InMemory`: images of one size as 8-bit pixels, all in memory.

use std::fmt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Dataset, ImageFiles, check_labels};
use crate::bad_samples::{BadSamplePolicy, BadSamples};
use crate::error::{Error, Result};
use crate::fingerprint::{Fingerprint, FingerprintHasher};
use crate::pixels::{CHANNELS, Image};

/// How many images a thread decodes before their faults are looked at.
const BLOCK_PER_THREAD: usize = 64;

/// Images of one size, 8-bit RGB, in memory.
#[derive(Clone)]
pub struct InMemory {
    /// `[N, H, W, 3]`.
    pixels: Vec<u8>,
    height: usize,
    width: usize,
    labels: Vec<u32>,
    classes: Vec<String>,
    source: PathBuf,
    /// Damaged images that were not decoded.
    left_out: usize,
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = [self.labels.len(), self.height, self.width, CHANNELS];
        f.debug_struct("InMemory")
            .field("source", &self.source)
            .field("shape", &shape)
            .finish_non_exhaustive()
    }
}

impl InMemory {
    /// A data set over `pixels`, with `source` saying where they come from.
    ///
    /// # Shapes
    /// `pixels` is `[N, height, width, 3]`, `labels` is `[N]`.
    ///
    /// # Errors
    /// [`Error::EmptySplit`] without labels, [`Error::PixelCount`] if the pixels are not as many as the labels and the size
    /// ask for, [`Error::LabelOutOfRange`].
    pub fn new(
        pixels: Vec<u8>,
        height: usize,
        width: usize,
        labels: Vec<u32>,
        classes: Vec<String>,
        source: impl Into<PathBuf>,
    ) -> Result<Self> {
        let source = source.into();
        let image = height.checked_mul(width).and_then(|plane| plane.checked_mul(CHANNELS));
        let expected = image
            .and_then(|image| image.checked_mul(labels.len()))
            .unwrap_or(usize::MAX);
        if labels.is_empty() || image == Some(0) {
            return Err(Error::EmptySplit { path: source });
        }
        if pixels.len() != expected {
            return Err(Error::PixelCount {
                path: source,
                expected,
                got: pixels.len(),
            });
        }
        check_labels(&source, labels.iter().map(|&label| u64::from(label)), classes.len())?;
        Ok(Self {
            pixels,
            height,
            width,
            labels,
            classes,
            source,
            left_out: 0,
        })
    }

    /// Decodes all images of a folder, an archive or a table, in parallel; `bad_samples` says what happens to damaged ones.
    ///
    /// # Errors
    /// The first file's that cannot be read or decoded; [`Error::SizeMismatch`] for the first image that does not have the
    /// size of the first; [`Error::ImagesExceedMemory`]; [`Error::TooManyBadSamples`]; [`Error::EmptySplit`] if none is left.
    pub fn decode(files: &(impl ImageFiles + ?Sized), bad_samples: BadSamplePolicy) -> Result<Self> {
        let source = files.describe();
        let _span = tracing::info_span!("load", source).entered();
        let bad = BadSamples::new(bad_samples, source.clone(), files.len())?;
        let (height, width) = first_size(files, &bad)?.ok_or_else(|| Error::EmptySplit {
            path: source.clone().into(),
        })?;
        let image_bytes = height * width * CHANNELS;
        let mut pixels = Vec::new();
        let all_bytes = files.len().checked_mul(image_bytes);
        if all_bytes.is_none_or(|bytes| pixels.try_reserve_exact(bytes).is_err()) {
            return Err(Error::ImagesExceedMemory {
                path: source.into(),
                images: files.len(),
                size: (height, width),
            });
        }
        // Faults are looked at after so many images: enough to keep all threads busy, and few where the first is the end.
        let block = BLOCK_PER_THREAD * rayon::current_num_threads();
        let mut labels = Vec::new();
        for start in (0..files.len()).step_by(block) {
            let indices = start..files.len().min(start + block);
            let mut end = pixels.len();
            pixels.resize(end + indices.len() * image_bytes, 0);
            let faults = decode_block(files, start, (height, width), &mut pixels[end..]);
            let decoded = (end..).step_by(image_bytes.max(1));
            for ((index, fault), at) in indices.zip(faults).zip(decoded) {
                if let Some(error) = fault {
                    bad.admit(index, error)?;
                    continue;
                }
                // What is kept moves up to where damaged ones were.
                if end < at {
                    pixels.copy_within(at..at + image_bytes, end);
                }
                end += image_bytes;
                labels.push(files.label(index));
            }
            pixels.truncate(end);
        }
        let skipped = files.len() - labels.len();
        if skipped > 0 {
            let all = files.len();
            tracing::warn!(
                skipped,
                "{source}: skipped {skipped} of {all} images, which are damaged"
            );
        }
        let this = Self::new(pixels, height, width, labels, files.classes().to_vec(), source)?;
        tracing::debug!(images = this.len(), height, width, "decoded");
        Ok(Self {
            left_out: skipped,
            ..this
        })
    }

    /// The same samples with other class names.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`] if there are too few names.
    pub fn with_classes(self, classes: Vec<String>) -> Result<Self> {
        check_labels(
            &self.source,
            self.labels.iter().map(|&label| u64::from(label)),
            classes.len(),
        )?;
        Ok(Self { classes, ..self })
    }

    /// Height of every image.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width of every image.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All pixels, `[N, H, W, 3]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// All labels, `[N]`.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Where the images come from.
    pub fn source(&self) -> &Path {
        &self.source
    }
}

/// Height and width of the first image that is not damaged; none if all are.
fn first_size(files: &(impl ImageFiles + ?Sized), bad: &BadSamples) -> Result<Option<(usize, usize)>> {
    for index in 0..files.len() {
        match files.image(index) {
            Ok(image) => return Ok(Some((image.height(), image.width()))),
            Err(error) => bad.admit(index, error)?,
        }
    }
    Ok(None)
}

/// Decodes the images from `start` on into `pixels`, `[n, H, W, 3]`, in parallel; what is wrong with each.
fn decode_block(
    files: &(impl ImageFiles + ?Sized),
    start: usize,
    size: (usize, usize),
    pixels: &mut [u8],
) -> Vec<Option<Error>> {
    let image_bytes = size.0 * size.1 * CHANNELS;
    let decode = |(place, out): (usize, &mut [u8])| {
        let index = start + place;
        let image = match files.image(index) {
            Ok(image) => image,
            Err(error) => return Some(error),
        };
        let got = (image.height(), image.width());
        if got != size {
            return Some(Error::SizeMismatch {
                path: files.path(index),
                index,
                expected: size,
                got,
            });
        }
        out.copy_from_slice(&image.pixels());
        None
    };
    let images = pixels.par_chunks_exact_mut(image_bytes.max(1));
    images.enumerate().map(decode).collect()
}

impl Dataset for InMemory {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        let size = self.height * self.width * CHANNELS;
        Image::new(&self.pixels[index * size..(index + 1) * size], self.height, self.width)
    }

    fn size_in_memory(&self) -> Option<(usize, usize)> {
        Some((self.height, self.width))
    }

    fn prefetch(&self, index: usize) {
        let size = self.height * self.width * CHANNELS;
        // A large image is read in order, which the processor notices itself.
        if let Some(pixels) = self
            .pixels
            .get(index * size..(index + 1) * size)
            .filter(|_| size <= 1 << 14)
        {
            kestrel_kernels::memory::prefetch(pixels);
        }
    }

    fn left_out(&self) -> usize {
        self.left_out
    }

    fn describe(&self) -> String {
        self.source.display().to_string()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        let mut hasher = FingerprintHasher::new("pixels", &self.classes, self.labels.iter().copied());
        hasher.number(self.height as u64);
        hasher.number(self.width as u64);
        hasher.field(&self.pixels);
        Ok(hasher.finish())
    }
}
