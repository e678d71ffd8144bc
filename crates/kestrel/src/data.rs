//! Which images a command works on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use candle_core::Device;
use indicatif::MultiProgress;
use kestrel_data::datasets::{self, Opened, cifar10, cifar100, idx, sample};
use kestrel_data::download::{Options, Progress};
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::sampler::{Sampler, WeightedRandomSampler};
use kestrel_data::transforms::Compose;
use kestrel_data::{BadSamplePolicy, Dataset, Splits, split};

use crate::config::{DatasetName, SamplerName, TrainConfig};
use crate::{exit, progress};

/// A data set, opened.
pub(crate) struct Source {
    /// What to call it in a run's name.
    pub(crate) name: String,
    /// Its splits; of a whole, all three are the whole.
    pub(crate) splits: Splits,
    /// Whether it is one whole without splits, of which a run must hold a part back.
    pub(crate) whole: bool,
    /// Whether this is the sample that the program carries.
    pub(crate) is_sample: bool,
}

impl Source {
    fn new<D: Dataset + 'static>(name: &str, splits: Splits<D>) -> Self {
        Self {
            name: name.to_owned(),
            splits: splits.into_dyn(),
            whole: false,
            is_sample: false,
        }
    }

    fn sample() -> kestrel_data::Result<Self> {
        Ok(Self {
            is_sample: true,
            ..Self::new(SAMPLE, sample::load()?)
        })
    }
}

const SAMPLE: &str = "fashion-mnist-sample";

/// Images of a run, by what they are for.
pub(crate) struct Data {
    pub(crate) train: Arc<dyn Dataset>,
    pub(crate) val: Arc<dyn Dataset>,
    pub(crate) test: Arc<dyn Dataset>,
    /// Whether `val` is `test`.
    pub(crate) val_is_test: bool,
}

impl Data {
    /// Holds back what the configuration asks for, and takes as many training images.
    pub(crate) fn split(source: &Source, config: &TrainConfig) -> Result<Self> {
        let mut train = Arc::clone(&source.splits.train);
        let mut test = Arc::clone(&source.splits.test);
        let mut val = source.splits.val.as_ref().map_or_else(|| Arc::clone(&test), Arc::clone);
        let mut val_is_test = source.splits.val.is_none();
        if config.val_fraction > 0.0 {
            if source.splits.val.is_some() {
                bail!(
                    "the data set has a val split, so val-fraction has nothing to do; leave it out, or remove the folder val"
                );
            }
            let (rest, held_out) = split::split_stratified(&train, config.val_fraction, config.seed)?;
            train = Arc::new(rest);
            val = Arc::new(held_out);
            // Of one whole, the part held back is all that there is to evaluate on.
            val_is_test = source.whole;
            if source.whole {
                test = Arc::clone(&val);
            }
        } else if source.whole {
            bail!(
                "{} is one whole without a test split; hold a part back with --val-fraction, such as 0.2",
                source.name
            );
        }
        if let Some(limit) = config.limit {
            train = Arc::new(split::limit(&train, limit)?);
        }
        Ok(Self {
            train,
            val,
            test,
            val_is_test,
        })
    }
}

/// Where a data set is looked for.
pub(crate) struct Place<'a> {
    /// The path that was given.
    pub(crate) path: Option<&'a Path>,
    /// Where downloads are kept.
    pub(crate) data_dir: &'a Path,
    /// What happens to damaged images.
    pub(crate) bad_samples: BadSamplePolicy,
    /// Whether the configuration names transforms: they may bring images of many sizes to one.
    pub(crate) own_transforms: bool,
}

/// Opens a data set: the path that was given, else the copy under `data_dir`, else a download.
pub(crate) fn open(name: DatasetName, place: &Place<'_>, bars: &MultiProgress) -> Result<Source> {
    let span = tracing::info_span!("open data");
    let _guard = span.enter();
    let Place { path, data_dir, .. } = *place;
    match (name, path) {
        (DatasetName::Mnist, Some(path)) => open_idx("mnist", path, &idx::DIGITS),
        (DatasetName::FashionMnist, Some(path)) => open_idx("fashion-mnist", path, &sample::CLASSES),
        (DatasetName::Mnist, None) => download_idx(&idx::MNIST, data_dir, bars),
        (DatasetName::FashionMnist, None) => download_idx(&idx::FASHION_MNIST, data_dir, bars),
        (DatasetName::FashionMnistSample, Some(path)) => Err(exit::usage(anyhow!(
            "the sample is part of the program and is not read from {}; leave out --data or --dataset",
            path.display()
        ))),
        (DatasetName::FashionMnistSample, None) => Ok(Source::sample()?),
        (DatasetName::Auto, Some(path)) => open_path(path, place),
        (DatasetName::Cifar10, Some(path)) => open_as("CIFAR-10", &cifar10::CLASSES, path, place),
        (DatasetName::Cifar100, Some(path)) => open_as("CIFAR-100", &cifar100::CLASSES, path, place),
        (DatasetName::Cifar10, None) => download_cifar10(data_dir, &Options::default(), bars)
            .context("CIFAR-10 cannot be had; give its binary folder or its .tar.gz with --data PATH"),
        (DatasetName::Cifar100, None) => {
            let splits = with_bar(bars, "CIFAR-100", cifar100::ARCHIVE.size.unwrap_or(0), |progress| {
                cifar100::open_or_download(data_dir, &cifar100::ARCHIVE, &Options::default(), progress)
            });
            let splits =
                splits.context("CIFAR-100 cannot be had; give its binary folder or its .tar.gz with --data PATH")?;
            Ok(Source::new("cifar100", splits))
        }
        (DatasetName::Auto, None) => match download_cifar10(data_dir, &impatient(), bars) {
            Ok(source) => Ok(source),
            // Only a network that does not deliver is made up for; a damaged copy must not pass in silence.
            Err(error) if matches!(error.downcast_ref(), Some(kestrel_data::Error::Download { .. })) => {
                tracing::warn!("{}", no_cifar(&error));
                Ok(Source::sample()?)
            }
            Err(error) => Err(error),
        },
    }
}

fn open_idx(name: &str, path: &Path, classes: &[&str]) -> Result<Source> {
    let classes: Vec<String> = classes.iter().map(ToString::to_string).collect();
    Ok(Source::new(name, idx::open(path)?.with_classes(&classes)?))
}

/// Opens a path that must hold the data set of these classes.
fn open_as(name: &str, classes: &[&str], path: &Path, place: &Place<'_>) -> Result<Source> {
    let source = open_path(path, place)?;
    let found = source.splits.train.classes();
    if found != classes {
        bail!(
            "{} holds the classes {}, not {name}'s; leave --dataset out to train on it",
            path.display(),
            found.join(", ")
        );
    }
    Ok(source)
}

fn open_path(path: &Path, place: &Place<'_>) -> Result<Source> {
    let files = if place.own_transforms {
        datasets::open_undecoded(path)?
    } else {
        None
    };
    let opened = match files {
        Some(files) => files,
        None => datasets::open_any(path, place.bad_samples)?.map(|split| Ok(split as Arc<dyn Dataset>))?,
    };
    let whole = matches!(opened, Opened::Whole(_));
    let splits = match opened {
        Opened::Splits(splits) => splits,
        Opened::Whole(all) => Splits {
            train: Arc::clone(&all),
            val: None,
            test: all,
        },
    };
    let classes = splits.train.classes();
    let name = if classes == cifar10::CLASSES {
        "cifar10".to_owned()
    } else if classes == cifar100::CLASSES {
        "cifar100".to_owned()
    } else {
        path.file_stem()
            .map_or("images".to_owned(), |name| name.to_string_lossy().into_owned())
    };
    Ok(Source {
        name,
        splits,
        whole,
        is_sample: false,
    })
}

/// Nobody should wait a minute for a network that is not there.
fn impatient() -> Options {
    Options {
        connect_timeout: Duration::from_secs(5),
        tries: 1,
        ..Options::default()
    }
}

fn download_cifar10(data_dir: &Path, options: &Options, bars: &MultiProgress) -> Result<Source> {
    let splits = with_bar(bars, "CIFAR-10", cifar10::ARCHIVE.size.unwrap_or(0), |progress| {
        cifar10::open_or_download(data_dir, &cifar10::ARCHIVE, options, progress)
    });
    Ok(Source::new("cifar10", splits?))
}

fn download_idx(remote: &idx::Remote<'_>, data_dir: &Path, bars: &MultiProgress) -> Result<Source> {
    let total = remote.files.iter().filter_map(|file| file.size).sum();
    let splits = with_bar(bars, remote.name, total, |progress| {
        idx::open_or_download(data_dir, remote, &Options::default(), progress)
    });
    let advice = || {
        format!(
            "{} cannot be had; give a folder of its four files with --data PATH",
            remote.name
        )
    };
    Ok(Source::new(remote.folder, splits.with_context(advice)?))
}

/// Runs a download with a bar on the terminal.
pub(crate) fn with_bar<T>(
    bars: &MultiProgress,
    name: &str,
    total: u64,
    fetch: impl FnOnce(&mut dyn FnMut(Progress)) -> kestrel_data::Result<T>,
) -> kestrel_data::Result<T> {
    let bar = progress::bytes(bars, name, total);
    let result = fetch(&mut |progress| {
        if total == 0 {
            bar.set_length(progress.total);
        }
        bar.set_position(progress.done);
    });
    bar.finish_and_clear();
    bars.remove(&bar);
    result
}

/// One clear block for a first run without a network.
fn no_cifar(error: &anyhow::Error) -> String {
    format!(
        "CIFAR-10 is not here and could not be downloaded:
  {}
Training on the embedded sample instead: 6,000 + 1,000 images of Fashion-MNIST, a few epochs.
To train on CIFAR-10, name its binary folder or its cifar-10-binary.tar.gz with --data PATH, or run again
with a network. With --dataset cifar10 there is never a substitute.",
        crate::describe(error)
    )
}

/// Images to evaluate on, and how they are made ready.
#[derive(Clone)]
pub(crate) struct EvalImages {
    pub(crate) dataset: Arc<dyn Dataset>,
    pub(crate) transforms: Compose,
    /// What happens to damaged images that were not decoded when the data set was opened.
    pub(crate) bad_samples: BadSamplePolicy,
}

/// A loader that evaluates: every image once, in order.
pub(crate) fn eval_loader(images: EvalImages, batch_size: usize, prefetch: usize) -> Result<DataLoader> {
    let EvalImages {
        dataset,
        transforms,
        bad_samples,
    } = images;
    let config = LoaderConfig {
        batch_size,
        shuffle: false,
        prefetch,
        bad_samples,
        ..LoaderConfig::default()
    };
    Ok(DataLoader::new(dataset, transforms, config)?)
}

/// The loader with its batches on `device`. On a GPU the images, which `what` names, are kept there where they can be, and
/// batches are made there of them: once the first is the host's to the bit.
pub(crate) fn on_device(loader: DataLoader, what: &str, device: &Device) -> Result<DataLoader> {
    if device.is_cpu() {
        return Ok(loader);
    }
    match loader.resident_on(device) {
        Ok(resident) if first_batch(&resident)? == first_batch(&loader)? => {
            tracing::info!("The {what} images are kept on the GPU");
            Ok(resident)
        }
        Ok(_) => {
            tracing::warn!(
                "The {what} images stay in the host's memory: the GPU makes other numbers of them than the host. That is a fault, of \
                 the program or of the GPU; please report it"
            );
            Ok(loader.to_device(device))
        }
        Err(kestrel_data::Error::NotResident(reason)) => {
            tracing::info!("The {what} images stay in the host's memory: {reason}");
            Ok(loader.to_device(device))
        }
        Err(error) => {
            // A GPU without room for them, above all; an image that cannot be read is told of where it is loaded.
            tracing::warn!("The {what} images stay in the host's memory: {error}");
            Ok(loader.to_device(device))
        }
    }
}

/// The bits of the images of a loader's first batch; none of no images.
fn first_batch(loader: &DataLoader) -> Result<Option<Vec<u32>>> {
    let Some(batch) = loader.epoch(0).next().transpose()? else {
        return Ok(None);
    };
    let values = batch.images.flatten_all()?.to_vec1::<f32>()?;
    Ok(Some(values.into_iter().map(f32::to_bits).collect()))
}

/// The sampler of the training images that the configuration asks for; none for plain shuffling.
pub(crate) fn sampler(dataset: &dyn Dataset, config: &TrainConfig) -> Result<Option<Arc<dyn Sampler>>> {
    Ok(match config.sampler {
        SamplerName::Shuffled => None,
        SamplerName::ClassBalanced => Some(Arc::new(WeightedRandomSampler::class_balanced(dataset, config.seed)?)),
        SamplerName::Weighted => {
            let given = config.class_weights.as_deref().unwrap_or_default();
            let weights = class_weights("class-weights", given, dataset.classes())?;
            Some(Arc::new(WeightedRandomSampler::by_class(
                dataset,
                &weights,
                config.seed,
            )?))
        }
    })
}

/// A weight for each class from an option's `CLASS=WEIGHT,...`; 1 where a class is not named.
pub(crate) fn class_weights(option: &str, given: &str, classes: &[String]) -> Result<Vec<f64>> {
    let mut weights = vec![1.0; classes.len()];
    for pair in given.split(',').filter(|pair| !pair.trim().is_empty()) {
        // A class's name may have an equals sign in it, a number has none.
        let (class, weight) = pair
            .rsplit_once('=')
            .with_context(|| format!("{option} has {pair:?}, expected CLASS=WEIGHT"))?;
        let at = classes.iter().position(|name| name == class.trim()).with_context(|| {
            format!(
                "{option} names {:?}, but the classes are {}",
                class.trim(),
                classes.join(", ")
            )
        })?;
        weights[at] = weight
            .trim()
            .parse()
            .with_context(|| format!("{option} has {pair:?}, whose weight is no number"))?;
    }
    Ok(weights)
}
