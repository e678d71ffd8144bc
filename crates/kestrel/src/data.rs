//! Which images a command works on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::MultiProgress;
use kestrel_data::datasets::{self, cifar10, sample};
use kestrel_data::download::Options;
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::transforms::{Compose, TransformSpec, presets};
use kestrel_data::{Dataset, Splits};

use crate::config::DatasetName;
use crate::progress;

/// A data set, opened.
pub(crate) struct Source {
    /// What to call it in a run's name.
    pub(crate) name: String,
    pub(crate) splits: Splits,
}

impl Source {
    fn new<D: Dataset + 'static>(name: &str, splits: Splits<D>) -> Self {
        Self {
            name: name.to_owned(),
            splits: splits.into_dyn(),
        }
    }

    /// Whether this is the sample that the program carries.
    pub(crate) fn is_sample(&self) -> bool {
        self.name == SAMPLE
    }
}

const SAMPLE: &str = "fashion-mnist-sample";

/// Opens a data set: the path that was given, else the copy under `data_dir`, else a download.
pub(crate) fn open(name: DatasetName, path: Option<&Path>, data_dir: &Path, bars: &MultiProgress) -> Result<Source> {
    let span = tracing::info_span!("open data");
    let _guard = span.enter();
    match (name, path) {
        (DatasetName::Mnist, Some(path)) => Ok(Source::new("mnist", datasets::candle::mnist(path)?)),
        (DatasetName::Mnist, None) => Ok(Source::new("mnist", datasets::candle::mnist_from_hub()?)),
        (DatasetName::FashionMnist, Some(path)) => {
            let splits = datasets::idx::open(path)?.with_classes(&sample::CLASSES.map(String::from))?;
            Ok(Source::new("fashion-mnist", splits))
        }
        (DatasetName::FashionMnist, None) => Ok(Source::new(
            "fashion-mnist",
            datasets::candle::fashion_mnist_from_hub()?,
        )),
        (DatasetName::FashionMnistSample, Some(path)) => bail!(
            "the sample is part of the program and is not read from {}; leave out --data or --dataset",
            path.display()
        ),
        (DatasetName::FashionMnistSample, None) => Ok(Source::new(SAMPLE, sample::load()?)),
        (DatasetName::Auto, Some(path)) => open_path(path),
        (DatasetName::Cifar10, Some(path)) => {
            let source = open_path(path)?;
            let classes = source.splits.train.classes();
            if classes != cifar10::CLASSES {
                bail!(
                    "{} holds the classes {}, not CIFAR-10's; leave --dataset out to train on it",
                    path.display(),
                    classes.join(", ")
                );
            }
            Ok(source)
        }
        (DatasetName::Cifar10, None) => download(data_dir, &Options::default(), bars)
            .context("CIFAR-10 cannot be had; give its binary folder or its .tar.gz with --data PATH"),
        (DatasetName::Auto, None) => match download(data_dir, &impatient(), bars) {
            Ok(source) => Ok(source),
            // Only a network that does not deliver is made up for; a damaged copy must not pass in silence.
            Err(error) if matches!(error.downcast_ref(), Some(kestrel_data::Error::Download { .. })) => {
                tracing::warn!("{}", no_cifar(&error));
                Ok(Source::new(SAMPLE, sample::load()?))
            }
            Err(error) => Err(error),
        },
    }
}

fn open_path(path: &Path) -> Result<Source> {
    let splits = datasets::open(path)?;
    let name = if splits.train.classes() == cifar10::CLASSES {
        "cifar10".to_owned()
    } else {
        path.file_name()
            .map_or("images".to_owned(), |name| name.to_string_lossy().into_owned())
    };
    Ok(Source {
        name,
        splits: splits.into_dyn(),
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

fn download(data_dir: &Path, options: &Options, bars: &MultiProgress) -> Result<Source> {
    let bar = progress::bytes(bars, "CIFAR-10", cifar10::ARCHIVE.size);
    let result = cifar10::open_or_download(data_dir, &cifar10::ARCHIVE, options, &mut |progress| {
        bar.set_position(progress.done);
    });
    bar.finish_and_clear();
    bars.remove(&bar);
    Ok(Source::new("cifar10", result?))
}

/// One clear block for a first run without a network.
fn no_cifar(error: &anyhow::Error) -> String {
    format!(
        "CIFAR-10 is not here and could not be downloaded:
  {error:#}
Training on the embedded sample instead: 6,000 + 1,000 images of Fashion-MNIST, a few epochs.
To train on CIFAR-10, name its binary folder or its cifar-10-binary.tar.gz with --data PATH, or run again
with a network. With --dataset cifar10 there is never a substitute."
    )
}

/// The pipeline of the training images: the configuration's, or the reference's for images of this size.
pub(crate) fn train_transforms(specs: Option<&[TransformSpec]>, dataset: &dyn Dataset) -> Result<Compose> {
    match specs {
        Some(specs) => Ok(Compose::from_specs(specs)?),
        None => Ok(presets::cifar_train(dataset.image(0)?.height())?),
    }
}

/// The pipeline of all other images: the configuration's, or the reference's.
pub(crate) fn eval_transforms(specs: Option<&[TransformSpec]>) -> Result<Compose> {
    match specs {
        Some(specs) => Ok(Compose::from_specs(specs)?),
        None => Ok(presets::cifar_eval()?),
    }
}

/// Images to evaluate on, and how they are made ready.
#[derive(Clone)]
pub(crate) struct EvalImages {
    pub(crate) dataset: Arc<dyn Dataset>,
    pub(crate) transforms: Compose,
}

/// A loader that evaluates: every image once, in order.
pub(crate) fn eval_loader(images: EvalImages, batch_size: usize, prefetch: usize) -> Result<DataLoader> {
    let EvalImages { dataset, transforms } = images;
    let config = LoaderConfig {
        batch_size,
        shuffle: false,
        prefetch,
        ..LoaderConfig::default()
    };
    Ok(DataLoader::new(dataset, transforms, config)?)
}
