//! Makes one batch: reads, transforms and writes its images side by side.

use std::any::Any;
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Device, Tensor};
use kestrel_kernels::memory::fill_chunks;
use kestrel_kernels::pixels::{Placement, ResidentImages};

use super::{Batch, resident};
use crate::bad_samples::BadSamples;
use crate::datasets::Dataset;
use crate::error::{Error, Result};
use crate::pixels::{CHANNELS, Image};
use crate::transforms::{Compose, SampleKey};

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
    /// The data set's images on the device, where they are kept there.
    resident: Option<Arc<ResidentImages>>,
}

/// What became of the samples of one batch.
pub(super) struct Made {
    /// The good ones; none if all are bad.
    pub(super) batch: Option<OnHost>,
    /// The bad ones that may be skipped, in the batch's order, with their faults.
    pub(super) bad: Vec<(usize, Error)>,
}

/// A batch before anything of it is on the device. What is put into a device's stream has to come from the thread that trains: it
/// may be recording what it puts there, to replay it.
pub(super) struct OnHost {
    images: Images,
    targets: Vec<u32>,
    soft_targets: Option<Tensor>,
    indices: Vec<usize>,
}

enum Images {
    /// All pixels, `[N, C, H, W]`.
    Written(Tensor),
    /// Where the device finds them.
    Placed(Arc<ResidentImages>, Vec<Placement>),
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
            resident: None,
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
            resident: None,
        }
    }

    /// The same, with the images on `device`.
    pub(super) fn clone_resident(&self, device: &Device) -> Result<Self> {
        let images = resident::upload(self.dataset.as_ref(), &self.transforms, device)?;
        let mut this = self.clone_to(device);
        this.resident = Some(Arc::new(images));
        Ok(this)
    }

    pub(super) fn is_resident(&self) -> bool {
        self.resident.is_some()
    }

    /// Runs `work` on the loader's threads, some time.
    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        match &self.pool {
            Some(pool) => pool.spawn(work),
            None => rayon::spawn(work),
        }
    }

    /// The batch of the samples `indices` in epoch `epoch`; its images are made side by side on the loader's threads.
    /// `number` is the batch's place in the epoch.
    pub(super) fn make(&self, epoch: u64, number: usize, mut indices: Vec<usize>) -> Result<Made> {
        let _span = tracing::debug_span!("load", epoch, images = indices.len()).entered();
        if let Some(images) = &self.resident {
            return self.place(images, epoch, indices);
        }
        let (height, width) = self.size;
        let image_len = CHANNELS * height * width;
        let faults = Mutex::new(BTreeMap::new());
        // The first error in the batch's order, so that it is the same for any number of threads.
        let mut data = fill_chunks(indices.len(), image_len, |place, out| {
            let index = indices[place];
            if let Some(&next) = indices.get(place + 1) {
                self.dataset.prefetch(next);
            }
            match self.guarded(index, || self.write(epoch, index, out)) {
                Ok(written) => Ok(Some(written)),
                Err(error) if self.bad.may_skip(&error) => {
                    let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
                    faults.insert(place, error);
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        })?;
        let faults = faults.into_inner().unwrap_or_else(PoisonError::into_inner);
        let places: Vec<usize> = faults.keys().copied().collect();
        let bad = faults
            .into_iter()
            .map(|(place, error)| (indices[place], error))
            .collect();
        drop_places(&places, image_len, &mut data, &mut indices);
        if indices.is_empty() {
            return Ok(Made { batch: None, bad });
        }
        let shape = [indices.len(), CHANNELS, height, width];
        let targets = self.targets(&indices)?;
        let soft_targets = if self.transforms.mixes_batches() {
            let classes = self.dataset.classes().len();
            let mut soft = one_hot(&targets, classes);
            let key = self.key(epoch, number);
            self.transforms.apply_to_batch(&mut data, shape, &mut soft, key)?;
            let soft = Tensor::from_vec(soft, (targets.len(), classes), &Device::Cpu);
            Some(soft.map_err(Error::candle("cannot make a batch's soft targets a tensor"))?)
        } else {
            None
        };
        let images = Tensor::from_vec(data, shape.as_slice(), &Device::Cpu);
        let images = images.map_err(Error::candle("cannot make a batch's images a tensor"))?;
        let batch = Some(OnHost {
            images: Images::Written(images),
            targets,
            soft_targets,
            indices,
        });
        Ok(Made { batch, bad })
    }

    /// Brings a batch to the device, or makes it there.
    pub(super) fn finish(&self, batch: OnHost) -> Result<Batch> {
        let moved = || Error::candle("cannot bring a batch to its device");
        let images = match batch.images {
            Images::Written(images) => images.to_device(&self.device).map_err(moved())?,
            Images::Placed(images, placements) => {
                let made = images.batch(self.size, &placements);
                made.map_err(Error::kernel("cannot make a batch on the device"))?
            }
        };
        let soft_targets = batch.soft_targets.map(|soft| soft.to_device(&self.device)).transpose();
        let targets = Tensor::from_vec(batch.targets, batch.indices.len(), &self.device);
        Ok(Batch {
            images,
            targets: targets.map_err(moved())?,
            soft_targets: soft_targets.map_err(moved())?,
            indices: batch.indices,
        })
    }

    /// The batch of these samples, of images that are on the device.
    fn place(&self, images: &Arc<ResidentImages>, epoch: u64, indices: Vec<usize>) -> Result<Made> {
        let place = |&index: &usize| {
            self.guarded(index, || {
                let (placement, _) = self.transforms.place(images.size(), index, self.key(epoch, index))?;
                Ok(placement)
            })
        };
        let placements = indices.iter().map(place).collect::<Result<Vec<_>>>()?;
        let batch = OnHost {
            images: Images::Placed(Arc::clone(images), placements),
            targets: self.targets(&indices)?,
            soft_targets: None,
            indices,
        };
        Ok(Made {
            batch: Some(batch),
            bad: Vec::new(),
        })
    }

    /// The labels. This crate's data sets check theirs when they are opened; a user's own may not.
    fn targets(&self, indices: &[usize]) -> Result<Vec<u32>> {
        let num_classes = self.dataset.classes().len();
        let label = |&index: &usize| {
            self.guarded(index, || {
                let label = self.dataset.label(index);
                if num_classes > 0 && label as usize >= num_classes {
                    return Err(Error::LabelOutOfRange {
                        path: self.dataset.describe_sample(index).into(),
                        index,
                        label: label.into(),
                        num_classes,
                    });
                }
                Ok(label)
            })
        };
        indices.iter().map(label).collect()
    }

    /// Reads and transforms one sample.
    fn transformed(&self, epoch: u64, index: usize) -> Result<Image<'_>> {
        let key = self.key(epoch, index);
        let mut choose = |height, width| self.transforms.region(height, width, key);
        let mut image = self.dataset.image_part(index, &mut choose)?;
        self.transforms.apply(&mut image, key)?;
        Ok(image)
    }

    /// Reads, transforms and writes one sample.
    fn write<'a>(&self, epoch: u64, index: usize, out: &'a mut [MaybeUninit<f32>]) -> Result<&'a mut [f32]> {
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
        let out = self.transforms.write_new(&image, out)?;
        self.transforms
            .apply_to_tensor(out, self.size, self.key(epoch, index))?;
        Ok(out)
    }

    fn key(&self, epoch: u64, index: usize) -> SampleKey {
        SampleKey {
            seed: self.seed,
            epoch,
            index: index as u64,
        }
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

/// A probability of 1 for each target's class, `[N, classes]`.
fn one_hot(targets: &[u32], classes: usize) -> Vec<f32> {
    let mut rows = vec![0.0; targets.len() * classes];
    for (row, &target) in rows.chunks_exact_mut(classes.max(1)).zip(targets) {
        if let Some(value) = row.get_mut(target as usize) {
            *value = 1.0;
        }
    }
    rows
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
