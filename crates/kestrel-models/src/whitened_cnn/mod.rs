//! A small network for fast training on small images: a whitening layer that is not learned, then three blocks with gelu.

mod symmetric_eigen;
mod whitening;

use candle_core::{DType, Device, Tensor};
use kestrel_kernels::channels_last::Activation;
use kestrel_kernels::tape::{self, Tape, Value};
use kestrel_kernels::{BatchNormConfig, Conv2dConfig};
use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Op};
use crate::init::{default_uniform, set_dirac};
use crate::layers::{BatchNorm2d, Conv2d, Linear, to_channels_last};
use crate::{Error, LayerGroup, Mode, Model, ParamBuilder, Params, Result};

/// Side of the whitening layer's patches, in pixels.
const PATCH: usize = 2;
/// A filter for each eigenvector of the patches and one for its negative.
const WHITENED: usize = 2 * 3 * PATCH * PATCH;
/// Images whose patches give the whitening filters.
const INIT_IMAGES: usize = 5000;
/// By which the last layer's outputs are multiplied.
const LOGIT_SCALE: f64 = 1.0 / 9.0;
/// Batch norm that follows the last batches closely (PyTorch's sense of momentum).
const BATCH_NORM: BatchNormConfig = BatchNormConfig {
    eps: 1e-12,
    momentum: 0.4,
};

/// The shape of a [`WhitenedCnn`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhitenedCnnConfig {
    /// How many classes.
    pub num_classes: usize,
    /// Channels of the first block; the other two have four times as many.
    pub width: usize,
    /// Side of the square input in pixels, at least 9.
    pub image_size: usize,
}

impl WhitenedCnnConfig {
    /// The published width, 64, for 32x32 images.
    pub fn new(num_classes: usize) -> Self {
        Self {
            num_classes,
            width: 64,
            image_size: 32,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        for (field, value, least, expected) in [
            ("num_classes", self.num_classes, 1, "at least 1"),
            ("width", self.width, 1, "at least 1"),
            (
                "image_size",
                self.image_size,
                9,
                "at least 9, so that three poolings leave a pixel",
            ),
        ] {
            if value < least {
                return Err(Error::InvalidConfig {
                    field,
                    expected,
                    got: value.to_string(),
                });
            }
        }
        Ok(())
    }

    /// The network in PyTorch, with the same names.
    pub(crate) fn pytorch(&self) -> String {
        let Self {
            num_classes, width: w, ..
        } = self;
        let BatchNormConfig { eps, momentum } = BATCH_NORM;
        format!(
            "conv = lambda i, a, b: (f\"conv{{i}}\", nn.Conv2d(a, b, 3, padding=1, bias=False))\n\
             norm = lambda i, b: [(f\"bn{{i}}\", nn.BatchNorm2d(b, eps={eps:e}, momentum={momentum})), (f\"gelu{{i}}\", nn.GELU())]\n\
             block = lambda a, b: nn.Sequential(OrderedDict([conv(1, a, b), (\"pool\", nn.MaxPool2d(2)), *norm(1, b), \
             conv(2, b, b), *norm(2, b)]))\n\
             model = nn.Sequential(OrderedDict([(\"whiten\", nn.Conv2d(3, {WHITENED}, {PATCH})), (\"gelu\", nn.GELU()), \
             (\"block1\", block({WHITENED}, {w})), (\"block2\", block({w}, {wide})), (\"block3\", block({wide}, {wide})), \
             (\"pool\", nn.MaxPool2d({side})), (\"flatten\", nn.Flatten()), \
             (\"head\", nn.Linear({wide}, {num_classes}, bias=False))]))\n\
             model.head.register_forward_hook(lambda module, inputs, outputs: outputs * {LOGIT_SCALE})",
            wide = 4 * w,
            side = self.last_side(),
        )
    }

    /// Side of the last block's output.
    fn last_side(&self) -> usize {
        (self.image_size - (PATCH - 1)) / 8
    }
}

/// `Conv2x2, GELU`, three blocks of `Conv3x3, MaxPool 2, BatchNorm, GELU, Conv3x3, BatchNorm, GELU`, then the maximum over
/// all pixels and a linear layer without bias, whose outputs are divided by 9.
///
/// The filters of the first layer whiten the patches of the images, and are not trained; [`init_from_images`] sets them.
/// The batch norms have a bias and no weight to train, the convolutions of the blocks no bias; these pass their inputs on at
/// first (Dirac's delta in as many filters as there are inputs, PyTorch's initialisation in the others).
///
/// Parameters are named `whiten`, `block1..3.{conv1, bn1, conv2, bn2}`, `head`.
///
/// # Source
/// K. Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv 2404.00498), sections 3.1 to 3.4 and appendix A;
/// whitening and the block's shape after D. Page 2019 and tysam-code 2023. The golden file `whitened_cnn` compares logits,
/// loss, gradients, running statistics and ten steps of Nesterov's momentum with PyTorch's.
///
/// [`init_from_images`]: Model::init_from_images
pub struct WhitenedCnn {
    whiten: Conv2d,
    blocks: Vec<Block>,
    head: Linear,
    config: WhitenedCnnConfig,
    params: Params,
}

impl WhitenedCnn {
    /// A network with initial values drawn from `seed`; the whitening filters are drawn too until images have set them.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for a configuration that makes no network.
    pub fn new(config: WhitenedCnnConfig, seed: u64, dtype: DType, device: &Device) -> Result<Self> {
        config.check()?;
        let params = Params::new(seed);
        let builder = params.builder(dtype, device);
        let init = default_uniform(3 * PATCH * PATCH);
        let whole = Conv2dConfig::default();
        let whiten = Conv2d::with_fixed_weight(3, WHITENED, PATCH, whole, init, &builder.pp("whiten"))?;
        let (width, wide) = (config.width, 4 * config.width);
        let blocks = [(WHITENED, width), (width, wide), (wide, wide)]
            .into_iter()
            .enumerate()
            .map(|(i, (inputs, outputs))| Block::new(inputs, outputs, &builder.pp(format!("block{}", i + 1))))
            .collect::<Result<_>>()?;
        let head = Linear::without_bias(wide, config.num_classes, &builder.pp("head"))?;
        Ok(Self {
            whiten,
            blocks,
            head,
            config,
            params,
        })
    }

    /// The images in the layout that the image layers take.
    fn enter(&self, images: &Tensor) -> Result<Tensor> {
        let size = self.config.image_size;
        match images.dims() {
            [_, 3, h, w] if *h == size && *w == size => Ok(to_channels_last(images)?),
            got => Err(Error::InputShape {
                expected: format!("[N, 3, {size}, {size}]"),
                got: got.to_vec(),
            }),
        }
    }

    /// The convolutions.
    fn map(&self, tape: &mut Tape, images: &Tensor, mode: Mode) -> kestrel_kernels::Result<Value> {
        let x = tape.leaf(images)?;
        let x = self.whiten.forward(tape, &x)?;
        let mut x = tape.gelu(&x)?;
        for block in &self.blocks {
            x = block.forward(tape, &x, mode)?;
        }
        Ok(x)
    }

    /// From the map to what the last layer takes.
    fn maxima(&self, tape: &mut Tape, map: &Value) -> kestrel_kernels::Result<Value> {
        let side = self.config.last_side();
        let x = tape.max_pool2d(map, side, side, 0)?;
        tape.flatten(&x)
    }
}

/// `Conv3x3, MaxPool 2, BatchNorm, GELU, Conv3x3, BatchNorm, GELU`.
struct Block {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: Conv2d,
    bn2: BatchNorm2d,
}

impl Block {
    fn new(inputs: usize, outputs: usize, builder: &ParamBuilder) -> Result<Self> {
        let conv = |name, inputs| -> Result<Conv2d> {
            let same = Conv2dConfig {
                padding: 1,
                ..Conv2dConfig::default()
            };
            let init = default_uniform(9 * inputs);
            let conv = Conv2d::without_bias(inputs, outputs, 3, same, init, &builder.pp(name))?;
            set_dirac(conv.weight())?;
            Ok(conv)
        };
        let norm = |name| BatchNorm2d::with_fixed_weight(outputs, BATCH_NORM, &builder.pp(name));
        Ok(Self {
            conv1: conv("conv1", inputs)?,
            bn1: norm("bn1")?,
            conv2: conv("conv2", outputs)?,
            bn2: norm("bn2")?,
        })
    }

    fn forward(&self, tape: &mut Tape, x: &Value, mode: Mode) -> kestrel_kernels::Result<Value> {
        let x = self.conv1.forward(tape, x)?;
        let x = tape.max_pool2d(&x, 2, 2, 0)?;
        let x = self.bn1.forward(tape, &x, Activation::Gelu, mode)?;
        self.conv2
            .forward_batch_norm(tape, &x, &self.bn2, Activation::Gelu, mode)
    }
}

impl Model for WhitenedCnn {
    fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        let images = self.enter(images)?;
        let outputs = mode.section(|tape| {
            let map = self.map(tape, &images, mode)?;
            let maxima = self.maxima(tape, &map)?;
            self.head.forward(tape, &maxima)
        })?;
        Ok((outputs * LOGIT_SCALE)?)
    }

    fn features(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        let images = self.enter(images)?;
        mode.section(|tape| {
            let map = self.map(tape, &images, mode)?;
            self.maxima(tape, &map)
        })
    }

    fn classify(&self, features: &Tensor, mode: Mode) -> Result<Tensor> {
        let outputs = mode.section(|tape| {
            let maxima = tape.leaf(features)?;
            self.head.forward(tape, &maxima)
        })?;
        Ok((outputs * LOGIT_SCALE)?)
    }

    fn feature_map(&self, images: &Tensor) -> Result<Tensor> {
        let images = self.enter(images)?;
        Mode::Eval.section(|tape| self.map(tape, &images, Mode::Eval))
    }

    fn classify_map(&self, map: &Tensor) -> Result<Tensor> {
        let outputs = tape::section(|tape| {
            let map = tape.leaf(map)?;
            let maxima = self.maxima(tape, &map)?;
            self.head.forward(tape, &maxima)
        })?;
        Ok((outputs * LOGIT_SCALE)?)
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn num_init_images(&self) -> usize {
        INIT_IMAGES
    }

    fn init_from_images(&self, images: &Tensor) -> Result<()> {
        self.enter(images)?;
        let filters = whitening::filters(images, PATCH)?;
        self.whiten.weight().set(&filters)
    }

    fn graph(&self) -> Option<Graph> {
        let mut graph = Graph::new();
        let same = Conv2dConfig {
            padding: 1,
            ..Conv2dConfig::default()
        };
        let norm = Op::BatchNorm2d { eps: BATCH_NORM.eps };
        let x = graph.input();
        let x = graph.conv2d("whiten", x, Conv2dConfig::default());
        let mut x = graph.gelu("gelu", x);
        for i in 1..=self.blocks.len() {
            x = graph.conv2d(format!("block{i}.conv1"), x, same);
            x = graph.max_pool(format!("block{i}.pool"), x, (2, 2, 0));
            x = graph.push(format!("block{i}.bn1"), norm, &[x]);
            x = graph.gelu(format!("block{i}.gelu1"), x);
            x = graph.conv2d(format!("block{i}.conv2"), x, same);
            x = graph.push(format!("block{i}.bn2"), norm, &[x]);
            x = graph.gelu(format!("block{i}.gelu2"), x);
        }
        let side = self.config.last_side();
        x = graph.max_pool("pool", x, (side, side, 0));
        x = graph.flatten("flatten", x);
        x = graph.linear("head", x);
        graph.scale("scale", x, LOGIT_SCALE);
        Some(graph)
    }

    fn layer_groups(&self) -> Vec<LayerGroup> {
        let group = |name, modules| LayerGroup { name, modules };
        vec![
            group("whiten", &["whiten"]),
            group("block1", &["block1"]),
            group("block2", &["block2"]),
            group("block3", &["block3"]),
            group("head", &["head"]),
        ]
    }

    fn head(&self) -> &'static str {
        "head"
    }

    fn num_classes(&self) -> usize {
        self.config.num_classes
    }

    fn can_be_recorded(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
