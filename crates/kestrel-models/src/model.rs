//! What a classifier is to the rest of the workspace.

use std::sync::Arc;

use candle_core::{Tensor, Var};
use kestrel_kernels::tape::{self, Tape, Value};

use crate::graph::Graph;
use crate::params::in_module;
use crate::{Params, Result};

/// How a forward pass runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics in batch norm (the running ones move), dropout on.
    Train {
        /// The run's seed.
        seed: u64,
        /// The optimiser step, from 0; with the seed it decides the dropout masks.
        step: u64,
    },
    /// Running statistics in batch norm, dropout off, and no graph: as under `torch.no_grad`.
    Eval,
}

impl Mode {
    /// Whether this is a training pass.
    pub fn is_train(self) -> bool {
        matches!(self, Mode::Train { .. })
    }

    /// Runs the image part of a net: one op of candle's graph in training, without a graph otherwise.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn section(self, f: impl FnOnce(&mut Tape) -> kestrel_kernels::Result<Value>) -> Result<Tensor> {
        let result = if self.is_train() {
            tape::section(f)
        } else {
            tape::inference(f)
        };
        Ok(result?)
    }
}

/// An image classifier.
///
/// The logits carry candle's graph, so `loss.backward()` reaches the parameters; a model may mix the layers of this
/// crate with any of candle's.
pub trait Model: Send + Sync {
    /// The logits of a batch.
    ///
    /// # Shapes
    /// `images [N, 3, H, W]`, normalised → `[N, num_classes]`.
    ///
    /// # Errors
    /// [`crate::Error::InputShape`] where the images are not what the model takes.
    fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor>;

    /// What the last layer takes: `classify(features(x)) = forward(x)`. Without the last layer's cost, to be kept where all
    /// that comes before it is frozen. The images themselves, where a model does not say.
    ///
    /// # Shapes
    /// `images [N, 3, H, W]`, normalised → `[N, num_features]`.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward).
    fn features(&self, images: &Tensor, _mode: Mode) -> Result<Tensor> {
        Ok(images.clone())
    }

    /// The last layer: the logits of a batch of [`features`](Self::features). The whole model, where it does not say.
    ///
    /// # Shapes
    /// `features [N, num_features]` → `[N, num_classes]`.
    ///
    /// # Errors
    /// Where there are other features.
    fn classify(&self, features: &Tensor, mode: Mode) -> Result<Tensor> {
        self.forward(features, mode)
    }

    /// The last convolutional feature map, after its activation, in evaluation: the last place where what is seen still has a
    /// place in the image. `classify_map(feature_map(x)) = forward(x)`.
    ///
    /// # Shapes
    /// `images [N, 3, H, W]`, normalised → `[N, h, w, C]`.
    ///
    /// # Errors
    /// [`crate::Error::NoFeatureMap`] where a model does not say, and those of [`forward`](Self::forward).
    fn feature_map(&self, _images: &Tensor) -> Result<Tensor> {
        Err(crate::Error::NoFeatureMap)
    }

    /// The logits from a [`feature_map`](Self::feature_map), in evaluation, but with a graph back to the map: `backward` gives
    /// the gradient of a logit at it where the map is a variable. Parameters that are not frozen get theirs too.
    ///
    /// # Shapes
    /// `map [N, h, w, C]` → `[N, num_classes]`.
    ///
    /// # Errors
    /// [`crate::Error::NoFeatureMap`] where a model does not say, and where there is another map.
    fn classify_map(&self, _map: &Tensor) -> Result<Tensor> {
        Err(crate::Error::NoFeatureMap)
    }

    /// Parameters and buffers, by PyTorch's names.
    fn params(&self) -> &Params;

    /// How many training images [`init_from_images`](Self::init_from_images) should see; 0 where no first value depends on
    /// images.
    fn num_init_images(&self) -> usize {
        0
    }

    /// Sets the first values that depend on what the model will be trained on, before training begins.
    ///
    /// # Shapes
    /// `images [N, 3, H, W]`, normalised, not augmented; of every class.
    ///
    /// # Errors
    /// [`crate::Error::InputShape`] where the images are not what the model takes; nothing is changed then.
    fn init_from_images(&self, _images: &Tensor) -> Result<()> {
        Ok(())
    }

    /// The parts of the model from the input to the last layer, which is a group of its own: the steps in which a model is
    /// thawed, and to which learning rates of their own are given. Every parameter is in one of them. One group, where a model
    /// does not say.
    fn layer_groups(&self) -> Vec<LayerGroup> {
        vec![LayerGroup {
            name: "model",
            modules: &[""],
        }]
    }

    /// The name of the last layer, whose shape follows the number of classes; empty, the name of the whole, where a model does
    /// not say.
    fn head(&self) -> &'static str {
        ""
    }

    /// How many classes the logits tell apart.
    fn num_classes(&self) -> usize;

    /// The layers in evaluation, for summaries and exports; none where a model does not say.
    fn graph(&self) -> Option<Graph> {
        None
    }

    /// Whether a training pass may be recorded once on a GPU and replayed for later steps, which spares the host its launches.
    ///
    /// It promises that [`forward`](Self::forward), of a batch of one shape and with the same parameters frozen, makes the same
    /// launches whatever the step and whatever the numbers, and that only the tape's seeded ops (dropout) are random. A replay runs
    /// no code of the model: what the host draws, counts or chooses would stay as it was when the pass was recorded. Not, where a
    /// model does not say; its passes are then made launch by launch.
    fn can_be_recorded(&self) -> bool {
        false
    }

    /// Freezes every parameter but the last layer's: what transfer learning begins with.
    ///
    /// # Errors
    /// Those of [`Params::freeze`].
    fn freeze_all_but_head(&self) -> Result<()> {
        self.params().freeze("")?;
        self.params().unfreeze(self.head())
    }

    /// Trains the layer group of that name and all after it, and freezes those before it.
    ///
    /// # Errors
    /// [`crate::Error::UnknownLayerGroup`]; nothing is changed then.
    fn train_from(&self, group: &str) -> Result<()> {
        let groups = self.layer_groups();
        let Some(first) = groups.iter().position(|candidate| candidate.name == group) else {
            return Err(crate::Error::UnknownLayerGroup {
                name: group.to_owned(),
                groups: groups.iter().map(|group| group.name).collect(),
            });
        };
        groups[..first]
            .iter()
            .try_for_each(|group| group.freeze(self.params()))?;
        groups[first..]
            .iter()
            .try_for_each(|group| group.unfreeze(self.params()))
    }
}

/// A pointer to a model is a model: every method is the model's own, also those that have a default.
macro_rules! impl_for_pointer {
    ($pointer:ident) => {
        impl<M: Model + ?Sized> Model for $pointer<M> {
            fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
                M::forward(self, images, mode)
            }

            fn features(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
                M::features(self, images, mode)
            }

            fn classify(&self, features: &Tensor, mode: Mode) -> Result<Tensor> {
                M::classify(self, features, mode)
            }

            fn feature_map(&self, images: &Tensor) -> Result<Tensor> {
                M::feature_map(self, images)
            }

            fn classify_map(&self, map: &Tensor) -> Result<Tensor> {
                M::classify_map(self, map)
            }

            fn params(&self) -> &Params {
                M::params(self)
            }

            fn num_init_images(&self) -> usize {
                M::num_init_images(self)
            }

            fn init_from_images(&self, images: &Tensor) -> Result<()> {
                M::init_from_images(self, images)
            }

            fn layer_groups(&self) -> Vec<LayerGroup> {
                M::layer_groups(self)
            }

            fn head(&self) -> &'static str {
                M::head(self)
            }

            fn num_classes(&self) -> usize {
                M::num_classes(self)
            }

            fn graph(&self) -> Option<Graph> {
                M::graph(self)
            }

            fn can_be_recorded(&self) -> bool {
                M::can_be_recorded(self)
            }

            fn freeze_all_but_head(&self) -> Result<()> {
                M::freeze_all_but_head(self)
            }

            fn train_from(&self, group: &str) -> Result<()> {
                M::train_from(self, group)
            }
        }
    };
}

impl_for_pointer!(Arc);
impl_for_pointer!(Box);

/// A part of a model by the names of its modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerGroup {
    /// Its name.
    pub name: &'static str,
    /// Its modules; the parameters' names begin with theirs.
    pub modules: &'static [&'static str],
}

impl LayerGroup {
    /// Whether a parameter or buffer is in this group.
    pub fn contains(&self, name: &str) -> bool {
        self.modules.iter().any(|module| in_module(name, module))
    }

    /// The variables of this group that an optimiser moves, sorted by name.
    pub fn trainable(&self, params: &Params) -> Vec<(String, Var)> {
        let all = params.trainable().into_iter();
        all.filter(|(name, _)| self.contains(name)).collect()
    }

    /// Freezes the group, as [`Params::freeze`].
    ///
    /// # Errors
    /// [`crate::Error::UnknownModule`] where the model has not all of its modules; those before it are then frozen.
    pub fn freeze(&self, params: &Params) -> Result<()> {
        self.modules.iter().try_for_each(|module| params.freeze(module))
    }

    /// Undoes [`freeze`](Self::freeze).
    ///
    /// # Errors
    /// Those of [`freeze`](Self::freeze).
    pub fn unfreeze(&self, params: &Params) -> Result<()> {
        self.modules.iter().try_for_each(|module| params.unfreeze(module))
    }

    /// Whether every parameter of the group is frozen.
    pub fn is_frozen(&self, params: &Params) -> bool {
        self.modules.iter().all(|module| params.is_frozen(module))
    }
}
