//! torchvision's residual networks: ResNet-18, 34 and 50.
//!
//! ```text
//! N images, C classes, sides for 224 pixels         stem imagenet        stem cifar
//! conv1, bn1, relu (, 3x3 max pool with stride 2)   [N, 56, 56, 64]      the images' side
//! layer1                                            [N, 56, 56, 64 E]    same           E = 1, ResNet-50: 4
//! layer2, layer3, layer4                            each half the side and twice the channels of the one before
//! mean over the image                               [N, 512 E]           the features
//! fc                                                [N, C]
//! ```

mod block;
mod config;

use candle_core::{DType, Device, Tensor};
use kestrel_kernels::channels_last::Activation;
use kestrel_kernels::tape::{self, Tape, Value};

pub use config::{Depth, ResNetConfig, Stem};

use crate::graph::Graph;
use crate::layers::{Linear, to_channels_last};
use crate::{Error, LayerGroup, Mode, Model, Params, Result};
use block::{Block, ConvNorm};

/// The layer groups before the last: [`Model::layer_groups`] in the order in which they run.
const STAGES: [LayerGroup; 5] = [
    LayerGroup {
        name: "stem",
        modules: &["conv1", "bn1"],
    },
    LayerGroup {
        name: "layer1",
        modules: &["layer1"],
    },
    LayerGroup {
        name: "layer2",
        modules: &["layer2"],
    },
    LayerGroup {
        name: "layer3",
        modules: &["layer3"],
    },
    LayerGroup {
        name: "layer4",
        modules: &["layer4"],
    },
];

/// The last layer.
const HEAD: LayerGroup = LayerGroup {
    name: "fc",
    modules: &["fc"],
};

/// A residual network with the names, initial distributions and numbers of torchvision's.
///
/// # Source
/// He et al. 2015; `torchvision.models.resnet18`, `resnet34` and `resnet50`. The golden files `resnet*` compare logits,
/// loss, gradients and running statistics with torchvision's.
pub struct ResNet {
    stem: ConvNorm,
    layers: [Vec<Block>; 4],
    fc: Linear,
    config: ResNetConfig,
    params: Params,
}

impl ResNet {
    /// A network with torchvision's initial distributions, drawn from `seed`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for a configuration that makes no network.
    pub fn new(config: ResNetConfig, seed: u64, dtype: DType, device: &Device) -> Result<Self> {
        config.check()?;
        let params = Params::new(seed);
        let builder = params.builder(dtype, device);
        let (kernel, stride) = match config.stem {
            Stem::Imagenet => (7, 2),
            Stem::Cifar => (3, 1),
        };
        let stem = ConvNorm::numbered(1, 3, 64, kernel, stride, &builder)?;
        let mut layers = [const { Vec::new() }; 4];
        let mut inputs = 64;
        for (i, (layer, blocks)) in layers.iter_mut().zip(config.depth.blocks()).enumerate() {
            let builder = builder.pp(format!("layer{}", i + 1));
            let planes = 64 << i;
            for b in 0..blocks {
                let stride = if i > 0 && b == 0 { 2 } else { 1 };
                layer.push(Block::new(config.depth, inputs, planes, stride, &builder.pp(b))?);
                inputs = planes * block::expansion(config.depth);
            }
        }
        let fc = Linear::new(inputs, config.num_classes, &builder.pp("fc"))?;
        Ok(Self {
            stem,
            layers,
            fc,
            config,
            params,
        })
    }

    /// How many features the last layer takes: 512, or 2048 in ResNet-50.
    pub fn num_features(&self) -> usize {
        512 * block::expansion(self.config.depth)
    }

    /// Runs the features of a batch, and what `end` makes of them, as one section.
    fn run(
        &self,
        images: &Tensor,
        mode: Mode,
        end: impl FnOnce(&mut Tape, &Value) -> kestrel_kernels::Result<Value>,
    ) -> Result<Tensor> {
        let mut x = enter(images)?;
        // What is frozen from the start runs as in an inference: nothing of it is kept for a backward. Gradients of the
        // images themselves would need it recorded.
        let mut first = 0;
        if mode.is_train() && !images.track_op() {
            first = STAGES.iter().take_while(|stage| stage.is_frozen(&self.params)).count();
            if first > 0 {
                x = tape::inference(|tape| self.stages(tape, &x, 0..first, mode))?;
            }
        }
        mode.section(|tape| {
            let map = self.stages(tape, &x, first..STAGES.len(), mode)?;
            let features = mean(tape, &map)?;
            end(tape, &features)
        })
    }

    fn stages(
        &self,
        tape: &mut Tape,
        x: &Tensor,
        stages: std::ops::Range<usize>,
        mode: Mode,
    ) -> kestrel_kernels::Result<Value> {
        let mut x = tape.leaf(x)?;
        for stage in stages {
            x = match stage.checked_sub(1) {
                None => self.stem(tape, &x, mode)?,
                Some(layer) => self.layers[layer]
                    .iter()
                    .try_fold(x, |x, block| block.forward(tape, &x, mode))?,
            };
        }
        Ok(x)
    }

    fn stem(&self, tape: &mut Tape, x: &Value, mode: Mode) -> kestrel_kernels::Result<Value> {
        let x = self.stem.forward(tape, x, Activation::Relu, mode)?;
        match self.config.stem {
            Stem::Imagenet => tape.max_pool2d(&x, 3, 2, 1),
            Stem::Cifar => Ok(x),
        }
    }
}

/// The images in the layout that the image layers take.
fn enter(images: &Tensor) -> Result<Tensor> {
    match images.dims() {
        [_, 3, height, width] if *height > 0 && *width > 0 => Ok(to_channels_last(images)?),
        got => Err(Error::InputShape {
            expected: "[N, 3, H, W]".to_owned(),
            got: got.to_vec(),
        }),
    }
}

/// From the map to the features.
fn mean(tape: &mut Tape, map: &Value) -> kestrel_kernels::Result<Value> {
    let x = tape.adaptive_avg_pool2d(map, (1, 1))?;
    tape.flatten(&x)
}

impl Model for ResNet {
    fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        self.run(images, mode, |tape, features| self.fc.forward(tape, features))
    }

    fn features(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        self.run(images, mode, |_, features| Ok(features.clone()))
    }

    fn classify(&self, features: &Tensor, mode: Mode) -> Result<Tensor> {
        mode.section(|tape| {
            let features = tape.leaf(features)?;
            self.fc.forward(tape, &features)
        })
    }

    fn feature_map(&self, images: &Tensor) -> Result<Tensor> {
        let images = enter(images)?;
        Mode::Eval.section(|tape| self.stages(tape, &images, 0..STAGES.len(), Mode::Eval))
    }

    fn classify_map(&self, map: &Tensor) -> Result<Tensor> {
        Ok(tape::section(|tape| {
            let map = tape.leaf(map)?;
            let features = mean(tape, &map)?;
            self.fc.forward(tape, &features)
        })?)
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn layer_groups(&self) -> Vec<LayerGroup> {
        STAGES.into_iter().chain([HEAD]).collect()
    }

    fn head(&self) -> &'static str {
        HEAD.name
    }

    fn num_classes(&self) -> usize {
        self.config.num_classes
    }

    fn graph(&self) -> Option<Graph> {
        let mut graph = Graph::new();
        let image = graph.input();
        let x = self.stem.describe(&mut graph, "conv1", "bn1", image);
        let mut x = graph.relu("relu", x);
        if self.config.stem == Stem::Imagenet {
            x = graph.max_pool("maxpool", x, (3, 2, 1));
        }
        for (i, layer) in self.layers.iter().enumerate() {
            for (b, block) in layer.iter().enumerate() {
                x = block.describe(&mut graph, &format!("layer{}.{b}", i + 1), x);
            }
        }
        x = graph.global_avg_pool("avgpool", x);
        x = graph.flatten("flatten", x);
        graph.linear("fc", x);
        Some(graph)
    }

    fn can_be_recorded(&self) -> bool {
        true
    }
}
