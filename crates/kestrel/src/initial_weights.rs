//! What a run begins with: weights from a file, from an address, or published ones by name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use indicatif::MultiProgress;
use kestrel_data::download::{Download, Options};
use kestrel_data::{Dataset, split};
use kestrel_models::weights::{self, ModelInfo};
use kestrel_models::{Depth, Model, ModelConfig, StateDict};
use kestrel_train::checkpoint::Weights;

use crate::config::{PretrainedName, TrainConfig};
use crate::data::{self, EvalImages};

/// Where weights are kept, under the folder of downloads.
const FOLDER: &str = "weights";

/// torchvision's ResNet-18 of ImageNet (`ResNet18_Weights.IMAGENET1K_V1`): its own file, then the same tensors as timm has
/// them.
const RESNET18: [Download<'_>; 2] = [
    Download {
        urls: &["https://download.pytorch.org/models/resnet18-f37072fd.pth"],
        file_name: "resnet18-f37072fd.pth",
        size: Some(46_830_571),
        sha256: "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    },
    Download {
        urls: &[
            "https://huggingface.co/timm/resnet18.tv_in1k/resolve/bbd144b3e5565108aad885f145491d11bc6ce807/model.safetensors",
        ],
        file_name: "resnet18.tv_in1k.safetensors",
        size: Some(46_807_446),
        sha256: "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
    },
];

/// torchvision's ResNet-50 of ImageNet (`ResNet50_Weights.IMAGENET1K_V1`).
const RESNET50: [Download<'_>; 1] = [Download {
    urls: &["https://download.pytorch.org/models/resnet50-0676ba61.pth"],
    file_name: "resnet50-0676ba61.pth",
    size: Some(102_530_333),
    sha256: "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
}];

/// Sets a model to the weights that the configuration names, if it names any, which is returned; the head stays new where its
/// classes are others.
pub(crate) fn load(model: &dyn Model, info: &ModelInfo, config: &TrainConfig, bars: &MultiProgress) -> Result<bool> {
    let folder = config.data_dir.join(FOLDER);
    let path = match (&config.weights, config.pretrained) {
        (None, None) => return Ok(false),
        (_, Some(PretrainedName::Imagenet)) => published(&info.model, &folder, bars)?,
        (Some(weights), None) if weights.contains("://") => fetch(weights, &folder, bars)?,
        (Some(weights), None) => PathBuf::from(weights),
    };
    let given = read(&path)?;
    if let Some(of) = &given.of {
        let (expected, got) = (info.model.name(), of.model.name());
        if expected != got {
            bail!(
                "{} holds weights of {got}, and the model is {expected}; choose it with --model {got}",
                path.display()
            );
        }
    }
    let other_classes = given.of.is_some_and(|of| of.classes != info.classes);
    let params = model.params();
    let report = if other_classes {
        params.load_for_other_classes(&given.tensors, model.head())
    } else {
        params.load_with_new_head(&given.tensors, model.head())
    };
    let report = report.with_context(|| format!("loading {}", path.display()))?;
    tracing::info!("Weights: {}: {report}", path.display());
    if !report.replaced.is_empty() {
        tracing::info!(
            "The last layer, {}, begins at random: the weights tell apart other classes than the data set's {}",
            model.head(),
            info.classes.len()
        );
    }
    Ok(true)
}

/// Sets the first values that depend on the training images, in a model that has such: of images of every class, not augmented.
pub(crate) fn from_images(
    model: &dyn Model,
    train: &Arc<dyn Dataset>,
    config: &TrainConfig,
    device: &Device,
) -> Result<()> {
    let count = model.num_init_images().min(train.len());
    if count == 0 {
        return Ok(());
    }
    let images = EvalImages {
        dataset: Arc::new(split::limit(train, count)?),
        transforms: config.eval_pipeline()?,
        bad_samples: config.bad_samples(),
    };
    let loader = data::eval_loader(images, count, 1)?.to_device(device);
    let batch = loader.epoch(0).next().context("no training image could be read")??;
    model.init_from_images(&batch.images)?;
    tracing::debug!("First values from {} training images", batch.images.dim(0)?);
    Ok(())
}

struct Given {
    tensors: StateDict,
    /// What the file says of them, if Kestrel wrote it.
    of: Option<ModelInfo>,
}

fn read(path: &Path) -> Result<Given> {
    let file = weights::load(path)?;
    if file.record.is_none() {
        let tensors = file.tensors;
        return Ok(Given { tensors, of: None });
    }
    let Weights { info, tensors } = Weights::load(path)?;
    Ok(Given {
        tensors,
        of: Some(info),
    })
}

/// The published file of a network; the first mirror that delivers.
fn published(model: &ModelConfig, folder: &Path, bars: &MultiProgress) -> Result<PathBuf> {
    let mirrors: &[Download<'_>] = match model {
        ModelConfig::ResNet(config) if config.depth == Depth::ResNet18 => &RESNET18,
        ModelConfig::ResNet(config) if config.depth == Depth::ResNet50 => &RESNET50,
        other => bail!(
            "pretrained is for resnet18 and resnet50, and the model is {}; name a file or an address with --weights",
            other.name()
        ),
    };
    let advice = || {
        let files: Vec<&str> = mirrors.iter().flat_map(|mirror| mirror.urls).copied().collect();
        format!(
            "the weights cannot be had; fetch one of these where there is a network, and name the file with --weights: {}",
            files.join(", ")
        )
    };
    first_of(mirrors, folder, bars).with_context(advice)
}

/// The first of several files of the same weights that is there, else that can be had.
fn first_of(mirrors: &[Download<'_>], folder: &Path, bars: &MultiProgress) -> Result<PathBuf> {
    // The one that was fetched before needs no network.
    let there = mirrors.iter().filter(|mirror| folder.join(mirror.file_name).exists());
    let others = mirrors.iter().filter(|mirror| !folder.join(mirror.file_name).exists());
    let mut failed = None;
    for mirror in there.chain(others) {
        match one(mirror, folder, bars) {
            Ok(path) => return Ok(path),
            Err(error) => {
                tracing::debug!("{error:#}");
                failed.get_or_insert(error);
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None => bail!("no address is known"),
    }
}

/// Weights at an address that carries the first digits of their sha256, as torch.hub's do: `resnet18-f37072fd.pth`.
fn fetch(url: &str, folder: &Path, bars: &MultiProgress) -> Result<PathBuf> {
    let name = url.rsplit('/').next().unwrap_or_default();
    let name = name.split(['?', '#']).next().unwrap_or_default();
    let Some(digits) = hash_in(name) else {
        bail!(
            "weights are fetched only if their file name ends in a dash and at least 8 digits of their sha256, as \
             resnet18-f37072fd.pth, to be checked against them; got {name:?}. Fetch {url} yourself and name the file"
        );
    };
    let download = Download {
        urls: &[url],
        file_name: name,
        size: None,
        sha256: digits,
    };
    one(&download, folder, bars)
}

fn one(download: &Download<'_>, folder: &Path, bars: &MultiProgress) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let total = download.size.unwrap_or(0);
    Ok(data::with_bar(bars, download.file_name, total, |progress| {
        download.fetch(folder, &Options::default(), progress)
    })?)
}

/// The digits between the last dash and the first dot after it.
fn hash_in(name: &str) -> Option<&str> {
    let digits = name.rsplit_once('-')?.1.split('.').next()?;
    let is_hash = digits.len() >= 8 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_hash.then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_stands_at_the_end_of_the_name() {
        assert_eq!(hash_in("resnet18-f37072fd.pth"), Some("f37072fd"));
        assert_eq!(hash_in("a-b-0123456789abcdef.tar.gz"), Some("0123456789abcdef"));
        for name in [
            "resnet18.pth",
            "resnet18-f37072f.pth",
            "resnet18-F37072FD.pth",
            "resnet-weights.pth",
            "",
        ] {
            assert_eq!(hash_in(name), None, "{name}");
        }
    }

    #[test]
    fn the_published_files_are_pinned_whole() {
        for mirror in RESNET18.iter().chain(&RESNET50) {
            assert!(mirror.sha256.len() == 64 && mirror.size.is_some());
            assert!(mirror.urls.iter().all(|url| url.starts_with("https://")));
            if let Some(digits) = hash_in(mirror.file_name) {
                assert!(mirror.sha256.starts_with(digits), "{}", mirror.file_name);
            }
        }
    }

    #[test]
    fn the_second_mirror_is_asked_if_the_first_does_not_deliver() {
        let folder = tempfile::tempdir().unwrap();
        let served = folder.path().join("b-file");
        std::fs::write(&served, b"weights").unwrap();
        let sha256 = kestrel_data::Fingerprint::of(b"weights").to_string();
        // The second is there already, so that no server is needed; the first is at a port where nobody listens.
        let mirror = |file_name| Download {
            urls: &["http://127.0.0.1:9/none"],
            file_name,
            size: Some(7),
            sha256: &sha256,
        };
        let bars = MultiProgress::new();
        let found = first_of(&[mirror("a-file"), mirror("b-file")], folder.path(), &bars).unwrap();
        assert_eq!(found, served);
    }
}
