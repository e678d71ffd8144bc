//! The options of transfer learning: the network's beginning, what is frozen, and the stages of a run.

use anyhow::{Context, Result, bail};
use kestrel_data::transforms::{Compose, TransformSpec, presets};
use kestrel_models::{CnnConfig, Error, Model, ModelConfig, ResNetConfig, Stem, WhitenedCnnConfig};
use kestrel_train::FreezeAfter;

use super::{ModelName, OptimizerName, PreprocessingName, StemName, TrainConfig, TrainOptions};

/// ImageNet's evaluation shows this part of the resized image's side: 224 of 256 pixels.
const CROP: (usize, usize) = (224, 256);

/// Everything is trained.
const NONE: &str = "none";
/// All but the last layer is frozen.
const BACKBONE: &str = "backbone";
/// Nothing is frozen any more.
const ALL: &str = "all";

/// A part of a run with an optimiser and a learning rate of its own.
pub(crate) struct Stage {
    /// The run's configuration, with this stage's epochs and learning rate.
    pub(crate) config: TrainConfig,
    /// The epoch, counted over all stages, that is its last.
    pub(crate) last_epoch: usize,
    trained: Trained,
}

enum Trained {
    /// All but what `freeze` names.
    Unless(String),
    /// What `unfreeze` names.
    From(String),
}

impl Stage {
    /// Freezes and thaws a model for this stage.
    pub(crate) fn prepare(&self, model: &dyn Model) -> Result<()> {
        let groups = model.layer_groups();
        let first = match &self.trained {
            Trained::Unless(frozen) if frozen == NONE => return Ok(()),
            Trained::Unless(frozen) if frozen == BACKBONE => return Ok(model.freeze_all_but_head()?),
            Trained::Unless(frozen) => {
                let next = groups.iter().skip_while(|group| group.name != frozen).nth(1);
                match next {
                    Some(group) => group.name,
                    None if groups.last().is_some_and(|group| group.name == frozen) => {
                        bail!("freeze is {frozen}, the last layer group, so nothing would be trained")
                    }
                    None => frozen,
                }
            }
            Trained::From(group) if group == ALL => groups.first().map_or("", |group| group.name),
            Trained::From(group) => group,
        };
        Ok(model.train_from(first)?)
    }
}

impl TrainOptions {
    /// What is different where a residual network is fine-tuned.
    pub(crate) fn finetune_resnet() -> Self {
        Self {
            model: Some(ModelName::ResNet18),
            preprocessing: Some(PreprocessingName::Imagenet),
            freeze: Some(BACKBONE.to_owned()),
            batch_size: Some(32),
            eval_batch_size: Some(32),
            epochs: Some(10),
            lr: Some(1e-3),
            weight_decay: Some(0.0),
            ..Self::default()
        }
    }
}

impl TrainConfig {
    /// Errors where an option is set that does nothing, or two that exclude each other.
    pub(super) fn check_transfer(&self) -> Result<()> {
        let standard = Self::default();
        let resnet = self.model.depth().is_some();
        let second = self.unfreeze.is_some();
        let unused = [
            ("stem", self.stem != standard.stem, "a residual network", resnet),
            (
                "width",
                self.width != standard.width,
                "model cnn or whitened-cnn",
                !resnet,
            ),
            (
                "dropout",
                self.dropout != standard.dropout,
                "model cnn",
                self.model == ModelName::Cnn,
            ),
            (
                "image-size",
                self.image_size.is_some(),
                "preprocessing imagenet",
                self.preprocessing == PreprocessingName::Imagenet,
            ),
            (
                "unfreeze-epochs",
                self.unfreeze_epochs != standard.unfreeze_epochs,
                "unfreeze",
                second,
            ),
            (
                "unfreeze-lr",
                self.unfreeze_lr != standard.unfreeze_lr,
                "unfreeze",
                second,
            ),
            (
                "cache-views",
                self.cache_views.is_some_and(|views| views > 0),
                "freeze backbone",
                self.freeze == BACKBONE,
            ),
        ];
        for (option, set, other, chosen) in unused {
            if set && !chosen {
                bail!("{option} is for {other}; choose that, or leave {option} out");
            }
        }
        if self.freeze != NONE && self.weights.is_none() && self.pretrained.is_none() {
            bail!(
                "freeze is {}, but nothing is learned yet that could be kept: name what to begin with by pretrained or \
                 weights, or train all with freeze none",
                self.freeze
            );
        }
        if self.weights.is_some() && self.pretrained.is_some() {
            bail!("weights and pretrained are both given; choose one to begin with");
        }
        if self.pretrained.is_some() && self.stem == StemName::Cifar {
            bail!("pretrained is for stem imagenet; choose that, or leave pretrained out");
        }
        if second && self.freeze == NONE {
            bail!(
                "unfreeze is for a run that begins with a frozen part; choose one with freeze, or leave unfreeze out"
            );
        }
        if let Some(given) = &self.freeze_after {
            freeze_after(given)?;
        }
        if self.image_size == Some(0) {
            bail!("image-size is 0, but must be at least 1");
        }
        // Else the images are as large as the data or the transforms make them.
        if self.preprocessing == PreprocessingName::Imagenet && self.eval_transforms.is_none() {
            let size = self.imagenet_size();
            match self.network(1, size).check() {
                Err(Error::InvalidConfig {
                    field: "image_size",
                    expected,
                    ..
                }) => bail!(
                    "image-size is {size}, but for model {} must be {expected}",
                    self.network(1, size).name()
                ),
                checked => checked?,
            }
        }
        for (option, value) in [
            ("unfreeze-lr", self.unfreeze_lr),
            ("layer-lr-decay", self.layer_lr_decay),
            ("norm-bias-lr-factor", self.norm_bias_lr_factor),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                bail!("{option} is {value}, but must be a finite number, 0 or more");
            }
        }
        if self.layer_lr_decay != 1.0 && self.optimizer == OptimizerName::Muon {
            bail!("layer-lr-decay is not for optimizer muon, which has two learning rates of its own");
        }
        self.stages().iter().skip(1).try_for_each(|stage| {
            let checked = stage.config.check_methods();
            checked.context("in the second stage")
        })
    }

    /// The stages of the run, at least one.
    pub(crate) fn stages(&self) -> Vec<Stage> {
        let mut stages = vec![Stage {
            config: self.clone(),
            last_epoch: self.epochs,
            trained: Trained::Unless(self.freeze.clone()),
        }];
        if let Some(group) = &self.unfreeze {
            stages.push(Stage {
                config: Self {
                    epochs: self.unfreeze_epochs,
                    lr: self.unfreeze_lr,
                    ..self.clone()
                },
                last_epoch: self.epochs + self.unfreeze_epochs,
                trained: Trained::From(group.clone()),
            });
        }
        stages
    }

    /// What freezes modules during the run, if the configuration names any.
    pub(crate) fn freezing(&self, model: &dyn Model) -> Result<Option<FreezeAfter>> {
        let Some(given) = &self.freeze_after else {
            return Ok(None);
        };
        let modules = freeze_after(given)?;
        let advice = || {
            let groups: Vec<&str> = model.layer_groups().iter().map(|group| group.name).collect();
            format!("freeze-after is {given:?}; the layer groups are {}", groups.join(", "))
        };
        Ok(Some(FreezeAfter::new(model.params(), modules).with_context(advice)?))
    }

    /// How many views of a training image to keep features of while the last layer alone is trained; 0 for none.
    pub(crate) fn views(&self) -> usize {
        self.cache_views.unwrap_or(if self.augment { 4 } else { 1 })
    }

    /// The network for images of this size.
    pub(crate) fn network(&self, num_classes: usize, image_size: usize) -> ModelConfig {
        match self.model.depth() {
            None if self.model == ModelName::WhitenedCnn => ModelConfig::WhitenedCnn(WhitenedCnnConfig {
                num_classes,
                width: self.width,
                image_size,
            }),
            None => ModelConfig::Cnn(CnnConfig {
                width: self.width,
                dropout: self.dropout,
                image_size,
                ..CnnConfig::new(num_classes)
            }),
            Some(depth) => ModelConfig::ResNet(ResNetConfig {
                depth,
                num_classes,
                stem: match self.stem {
                    StemName::Imagenet => Stem::Imagenet,
                    StemName::Cifar => Stem::Cifar,
                },
                image_size,
            }),
        }
    }

    /// The pipeline of the training images, `side` pixels wide as they are.
    pub(crate) fn train_pipeline(&self, side: usize) -> Result<Compose> {
        match (&self.train_transforms, self.preprocessing) {
            _ if !self.augment => self.eval_pipeline(),
            (Some(specs), _) => Ok(Compose::from_specs(specs)?),
            (None, PreprocessingName::Imagenet) => Ok(presets::imagenet_train(self.imagenet_size())?),
            (None, PreprocessingName::Cifar) => Ok(presets::cifar_train(side)?),
        }
    }

    /// The pipeline of all other images.
    pub(crate) fn eval_pipeline(&self) -> Result<Compose> {
        Ok(match self.eval_specs()? {
            Some(specs) => Compose::from_specs(&specs)?,
            None => presets::cifar_eval()?,
        })
    }

    /// What brings an image to the network's input, where it is not the reference's.
    pub(crate) fn eval_specs(&self) -> Result<Option<Vec<TransformSpec>>> {
        Ok(match (&self.eval_transforms, self.preprocessing) {
            (Some(specs), _) => Some(specs.clone()),
            (None, PreprocessingName::Cifar) => None,
            (None, PreprocessingName::Imagenet) => {
                let size = self.imagenet_size();
                let resize = (size * CROP.1).div_ceil(CROP.0);
                Some(presets::imagenet_eval(resize, size)?.specs())
            }
        })
    }

    fn imagenet_size(&self) -> usize {
        self.image_size.unwrap_or(CROP.0)
    }
}

/// Modules and after how many epochs each is frozen, from an option's `MODULE=EPOCHS,...`.
fn freeze_after(given: &str) -> Result<Vec<(String, usize)>> {
    let pairs = given.split(',').map(|pair| {
        let parsed = pair.split_once('=').and_then(|(module, epochs)| {
            let module = module.trim();
            Some((module.to_owned(), epochs.trim().parse().ok()?)).filter(|_| !module.is_empty())
        });
        parsed.with_context(|| format!("freeze-after has {pair:?}, expected MODULE=EPOCHS, such as stem=3"))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn config(options: &TrainOptions) -> Result<TrainConfig> {
        let weights = TrainOptions {
            weights: Some("w.pth".to_owned()),
            ..TrainOptions::default()
        };
        TrainConfig::from_layers(&[&TrainOptions::finetune_resnet(), &weights, options])
    }

    #[test]
    fn what_was_never_learned_is_not_frozen() {
        let error = TrainConfig::from_layers(&[&TrainOptions::finetune_resnet()]).unwrap_err();
        assert!(error.to_string().contains("pretrained or weights"), "{error}");
        let all = TrainOptions {
            freeze: Some(NONE.to_owned()),
            ..TrainOptions::default()
        };
        assert!(TrainConfig::from_layers(&[&TrainOptions::finetune_resnet(), &all]).is_ok());
    }

    /// The layer groups that a stage trains.
    fn trained(stage: &Stage) -> Result<Vec<&'static str>> {
        let model = stage.config.network(2, 32).build(0, DType::F32, &Device::Cpu)?;
        stage.prepare(model.as_ref())?;
        let groups = model.layer_groups().into_iter();
        Ok(groups
            .filter(|group| !group.is_frozen(model.params()))
            .map(|group| group.name)
            .collect())
    }

    #[test]
    fn fine_tuning_begins_with_the_head_and_thaws_what_is_named() {
        let stages = config(&TrainOptions::default()).unwrap().stages();
        assert_eq!(stages.len(), 1);
        assert_eq!(trained(&stages[0]).unwrap(), ["fc"]);
        for (unfreeze, want) in [
            ("layer4", vec!["layer4", "fc"]),
            ("all", vec!["stem", "layer1", "layer2", "layer3", "layer4", "fc"]),
        ] {
            let options = TrainOptions {
                unfreeze: Some(unfreeze.to_owned()),
                unfreeze_epochs: Some(3),
                unfreeze_lr: Some(1e-5),
                ..TrainOptions::default()
            };
            let stages = config(&options).unwrap().stages();
            assert_eq!(
                stages.iter().map(|stage| stage.last_epoch).collect::<Vec<_>>(),
                [10, 13]
            );
            assert_eq!((stages[1].config.epochs, stages[1].config.lr), (3, 1e-5));
            assert_eq!(trained(&stages[1]).unwrap(), want);
        }
    }

    #[test]
    fn a_group_may_be_frozen_with_all_before_it() {
        let frozen = |group: &str| {
            let options = TrainOptions {
                freeze: Some(group.to_owned()),
                ..TrainOptions::default()
            };
            trained(&config(&options).unwrap().stages()[0])
        };
        assert_eq!(frozen("layer2").unwrap(), ["layer3", "layer4", "fc"]);
        assert_eq!(frozen("none").unwrap().len(), 6);
        assert!(
            frozen("fc")
                .unwrap_err()
                .to_string()
                .contains("nothing would be trained")
        );
        let error = frozen("layer5").unwrap_err().to_string();
        assert!(error.contains("layer5") && error.contains("stem, layer1"), "{error}");
    }

    #[test]
    fn images_are_cropped_as_imagenets_are() {
        let side = |image_size| {
            let options = TrainOptions {
                image_size,
                ..TrainOptions::default()
            };
            serde_json::to_string(&config(&options).unwrap().eval_specs().unwrap()).unwrap()
        };
        assert!(
            side(None).contains("256") && side(None).contains("224"),
            "{}",
            side(None)
        );
        assert!(
            side(Some(112)).contains("128") && side(Some(112)).contains("112"),
            "{}",
            side(Some(112))
        );
    }

    #[test]
    fn options_that_do_nothing_are_refused() {
        let some = TrainOptions::default;
        for (options, word) in [
            (
                TrainOptions {
                    width: Some(8),
                    ..some()
                },
                "width is for model cnn or whitened-cnn",
            ),
            (
                TrainOptions {
                    unfreeze_lr: Some(1.0),
                    ..some()
                },
                "unfreeze-lr is for unfreeze",
            ),
            (
                TrainOptions {
                    freeze: Some("none".into()),
                    unfreeze: Some("all".into()),
                    ..some()
                },
                "unfreeze is for",
            ),
            (
                TrainOptions {
                    freeze: Some("layer1".into()),
                    cache_views: Some(2),
                    ..some()
                },
                "cache-views is for freeze backbone",
            ),
            (
                TrainOptions {
                    weights: Some("a".into()),
                    pretrained: Some(super::super::PretrainedName::Imagenet),
                    ..some()
                },
                "both given",
            ),
            (
                TrainOptions {
                    layer_lr_decay: Some(f64::NAN),
                    ..some()
                },
                "layer-lr-decay is NaN",
            ),
        ] {
            let error = config(&options).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
