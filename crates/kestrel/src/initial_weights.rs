//! What a run begins with: weights from a file, from an address, or published ones by name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use indicatif::MultiProgress;
use kestrel_data::download::Download;
use kestrel_data::{Dataset, split};
use kestrel_models::weights::{self, ModelInfo};
use kestrel_models::{Depth, Model, ModelConfig, ResNet, ResNetConfig, StateDict};
use kestrel_train::checkpoint::Weights;

use crate::config::{PretrainedName, TrainConfig};
use crate::data::{self, EvalImages};
use crate::pretrained;

/// Where weights are kept, under the folder of downloads.
const FOLDER: &str = "weights";

/// Sets a model to the weights that the configuration names, if it names any, which is returned; the head stays new where its
/// classes are others.
pub(crate) fn load(model: &dyn Model, info: &ModelInfo, config: &TrainConfig, bars: &MultiProgress) -> Result<bool> {
    let folder = config.data_dir.join(FOLDER);
    let path = match (&config.weights, config.pretrained) {
        (None, None) => return Ok(false),
        (_, Some(PretrainedName::Imagenet)) => pretrained::fetch(&info.model, &folder, bars)?,
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
    let report = report.with_context(|| format!("loading {}{}", path.display(), hint(&given.tensors, info)))?;
    params.flush_denormal()?;
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

/// What weights that do not fit seem to be, and what to do; nothing where that is not known.
fn hint(tensors: &StateDict, info: &ModelInfo) -> String {
    let prefix = "module.";
    if !tensors.is_empty() && tensors.keys().all(|name| name.starts_with(prefix)) {
        return format!(
            ", whose names all begin with {prefix:?}, as DataParallel's do (save model.module.state_dict() instead)"
        );
    }
    match resnet_of(tensors) {
        Some(config) if !is(&info.model, &config) => {
            let (model, stem) = (config.depth.name(), config.stem.name());
            format!(
                ", which has the tensors of {model} with the stem {stem} (choose it with --model {model} --stem {stem})"
            )
        }
        _ => String::new(),
    }
}

/// Whether a model has the tensors of `config`, but for the classes.
fn is(model: &ModelConfig, config: &ResNetConfig) -> bool {
    matches!(model, ModelConfig::ResNet(model) if model.depth == config.depth && model.stem == config.stem)
}

/// The residual network that has just these tensors.
fn resnet_of(tensors: &StateDict) -> Option<ResNetConfig> {
    let classes = *tensors.get("fc.bias")?.dims().first()?;
    let depths = [Depth::ResNet18, Depth::ResNet34, Depth::ResNet50].into_iter();
    let mut configs = depths.flat_map(|depth| {
        let config = ResNetConfig::new(depth, classes);
        [ResNetConfig::cifar(depth, classes), config]
    });
    configs.find(|config| {
        let model = ResNet::new(config.clone(), 0, DType::F32, &Device::Cpu);
        model.is_ok_and(|model| model.params().load_state_dict(tensors).is_ok())
    })
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
    pretrained::one(&download, folder, bars)
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
}
