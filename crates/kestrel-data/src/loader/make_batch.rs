//! Makes one batch: reads, transforms and writes its images side by side.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use kestrel_kernels::random::{KeyedRng, Purpose};
use rayon::prelude::*;

use super::Batch;
use crate::bad_samples::BadSamples;
use crate::datasets::Dataset;
use crate::error::{Error, Result};
use crate::pixels::{CHANNELS, Image};
use crate::transforms::Compose;

/// Everything that a batch depends on but its place in the run.
pub(super) struct BatchMaker {
    pub(super) dataset: Arc<dyn Dataset>,
    pub(super) transforms: Compose,
    /// Height and width after the transforms.
    pub(super) size: (usize, usize),
    seed: u64,
    device: Device,
    pool: Option<Arc<rayon::ThreadPool>>,
    pub(super) bad: Arc<BadSamples>,
}

impl BatchMaker {
    pub(super) fn new(
        dataset: Arc<dyn Dataset>,
        transforms: Compose,
        seed: u64,
        threads: usize,
        bad: Arc<BadSamples>,
    ) -> Result<Self> {
        let pool = match threads {
            0 => None,
            _ => {
                let builder = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .thread_name(|i| format!("load-{i}"));
                let failed = |e| Error::io("start", "the loader's threads".as_ref())(std::io::Error::other(e));
                Some(Arc::new(builder.build().map_err(failed)?))
            }
        };
        let mut this = Self {
            dataset,
            transforms,
            size: (0, 0),
            seed,
            device: Device::Cpu,
            pool,
            bad,
        };
        for index in 0..this.dataset.len() {
            let size = this.guarded(index, || {
                let image = this.transformed(0, index)?;
                Ok((image.height(), image.width()))
            });
            match size {
                Ok(size) => {
                    this.size = size;
                    return Ok(this);
                }
                Err(error) => this.bad.admit(index, error)?,
            }
        }
        Err(Error::EmptySplit {
            path: this.dataset.describe().into(),
        })
    }

    pub(super) fn clone_to(&self, device: &Device) -> Self {
        Self {
            dataset: Arc::clone(&self.dataset),
            transforms: self.transforms.clone(),
            size: self.size,
            seed: self.seed,
            device: device.clone(),
            pool: self.pool.clone(),
            bad: Arc::clone(&self.bad),
        }
    }

    /// The batch of the samples `indices` in epoch `epoch`, without bad ones that are skipped; none if all are. `buffer` is
    /// memory to use; some comes back in it where the batch did not keep it.
    pub(super) fn make(&self, epoch: u64, mut indices: Vec<usize>, buffer: &mut Vec<f32>) -> Result<Option<Batch>> {
        let _span = tracing::debug_span!("load", epoch, images = indices.len()).entered();
        let (height, width) = self.size;
        let image_len = CHANNELS * height * width;
        let mut data = std::mem::take(buffer);
        data.resize(indices.len() * image_len, 0.0);
        let mut fill = || -> Vec<(usize, Error)> {
            let outputs = data.par_chunks_exact_mut(image_len.max(1));
            // In the batch's order, so that the error is the same for any number of threads.
            outputs
                .zip(&indices)
                .enumerate()
                .filter_map(|(place, (out, &index))| {
                    let fault = self.guarded(index, || self.write(epoch, index, out)).err();
                    fault.map(|error| (place, error))
                })
                .collect()
        };
        let faults = match &self.pool {
            Some(pool) => pool.install(fill),
            None => fill(),
        };
        let mut bad = Vec::with_capacity(faults.len());
        for (place, error) in faults {
            self.bad.admit(indices[place], error)?;
            bad.push(place);
        }
        drop_places(&bad, image_len, &mut data, &mut indices);
        if indices.is_empty() {
            return Ok(None);
        }
        let shape = (indices.len(), CHANNELS, height, width);
        let images = if self.device.is_cpu() {
            Tensor::from_vec(data, shape, &self.device)
        } else {
            let copied = Tensor::from_slice(&data, shape, &self.device);
            *buffer = data;
            copied
        };
        let images = images.map_err(Error::candle("cannot make a batch's images a tensor"))?;
        let label = |&index: &usize| self.guarded(index, || Ok(self.dataset.label(index)));
        let targets = indices.iter().map(label).collect::<Result<Vec<u32>>>()?;
        let targets = Tensor::from_vec(targets, indices.len(), &self.device)
            .map_err(Error::candle("cannot make a batch's targets a tensor"))?;
        Ok(Some(Batch {
            images,
            targets,
            indices,
        }))
    }

    /// Reads and transforms one sample.
    fn transformed(&self, epoch: u64, index: usize) -> Result<Image<'_>> {
        let mut image = self.dataset.image(index)?;
        let mut rng = KeyedRng::new(self.seed, Purpose::Transform, epoch, index as u64);
        self.transforms.apply(&mut image, &mut rng)?;
        Ok(image)
    }

    /// Reads, transforms and writes one sample.
    fn write(&self, epoch: u64, index: usize, out: &mut [f32]) -> Result<()> {
        let image = self.transformed(epoch, index)?;
        let got = (image.height(), image.width());
        if got != self.size {
            let path = self.dataset.describe_sample(index).into();
            return Err(Error::SizeMismatch {
                path,
                index,
                expected: self.size,
                got,
            });
        }
        self.transforms.write(&image, out)
    }

    /// Runs `work` on a sample; its error or its panic becomes an error that names the sample.
    fn guarded<T>(&self, index: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
        // A panic leaves nothing half changed that is used again: the batch is dropped.
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(Error::Sample {
                index,
                dataset: self.dataset.describe(),
                source: Box::new(source),
            }),
            Err(payload) => {
                let message = panic_message(payload.as_ref());
                Err(Error::Panicked {
                    index,
                    dataset: self.dataset.describe(),
                    message,
                })
            }
        }
    }
}

/// Takes the images at `places`, in rising order, out of a batch.
fn drop_places(places: &[usize], image_len: usize, data: &mut Vec<f32>, indices: &mut Vec<usize>) {
    let mut kept = 0;
    for place in 0..indices.len() {
        if places.binary_search(&place).is_err() {
            if kept != place {
                data.copy_within(place * image_len..(place + 1) * image_len, kept * image_len);
                indices[kept] = indices[place];
            }
            kept += 1;
        }
    }
    data.truncate(kept * image_len);
    indices.truncate(kept);
}

/// The message of a panic.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
        .to_owned()
}
