//! The CIFAR CNN: three blocks of two 3x3 convolutions, then two linear layers.

use candle_core::{DType, Device, Tensor};
use kestrel_kernels::Conv2dConfig;
use kestrel_kernels::channels_last::Activation;
use kestrel_kernels::tape::{self, Tape, Value};
use serde::{Deserialize, Serialize};

use crate::graph::Graph;
use crate::layers::{BatchNorm2d, Conv2d, Dropout, Linear, to_channels_last};
use crate::{Error, LayerGroup, Mode, Model, Params, Result};

/// The shape of a [`Cnn`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CnnConfig {
    /// How many classes.
    pub num_classes: usize,
    /// Channels of the first block; the others have twice and four times as many, the hidden layer eight times.
    pub width: usize,
    /// Probability of dropping a hidden unit.
    pub dropout: f64,
    /// Side of the square input in pixels, a multiple of 8.
    pub image_size: usize,
}

impl CnnConfig {
    /// The reference network: width 64, dropout 0.5, 32x32 images.
    pub fn new(num_classes: usize) -> Self {
        Self {
            num_classes,
            width: 64,
            dropout: 0.5,
            image_size: 32,
        }
    }

    /// Three lines of Python that make `model` in PyTorch, with this network's names.
    pub(crate) fn pytorch(&self) -> String {
        let Self {
            num_classes,
            width: w,
            dropout,
            image_size,
        } = self;
        let side = image_size / 8;
        format!(
            "block = lambda i, a, b: [(f\"conv{{i}}\", nn.Conv2d(a, b, 3, padding=1)), (f\"bn{{i}}\", nn.BatchNorm2d(b)), \
             (f\"relu{{i}}\", nn.ReLU())] + [(f\"pool{{i}}\", nn.MaxPool2d(2))] * (i % 2 == 0)\n\
             channels = [3, {w}, {w}, {w2}, {w2}, {w4}, {w4}]\n\
             model = nn.Sequential(OrderedDict(sum([block(i + 1, *channels[i:i + 2]) for i in range(6)], []) + \
             [(\"flatten\", nn.Flatten()), (\"fc1\", nn.Linear({inputs}, {w8})), (\"relu7\", nn.ReLU()), \
             (\"dropout\", nn.Dropout({dropout})), (\"fc2\", nn.Linear({w8}, {num_classes}))]))",
            w2 = 2 * w,
            w4 = 4 * w,
            w8 = 8 * w,
            inputs = 4 * w * side * side,
        )
    }

    pub(crate) fn check(&self) -> Result<()> {
        let bad = |field, expected, got: String| Err(Error::InvalidConfig { field, expected, got });
        if self.num_classes == 0 {
            return bad("num_classes", "at least 1", "0".into());
        }
        if self.width == 0 {
            return bad("width", "at least 1", "0".into());
        }
        if !(0.0..=1.0).contains(&self.dropout) {
            return bad("dropout", "between 0 and 1", self.dropout.to_string());
        }
        if self.image_size == 0 || !self.image_size.is_multiple_of(8) {
            return bad("image_size", "a multiple of 8", self.image_size.to_string());
        }
        Ok(())
    }
}

/// A 3x3 convolution whose output has its input's side.
const SAME: Conv2dConfig = Conv2dConfig {
    stride: 1,
    padding: 1,
    dilation: 1,
    groups: 1,
};

/// Three blocks of `[Conv3x3, BatchNorm, ReLU] x 2, MaxPool 2`, then `Linear, ReLU, Dropout, Linear`.
///
/// Parameters are named `conv1..6`, `bn1..6`, `fc1`, `fc2`, as in PyTorch's state dict of this model.
///
/// # Source
/// The golden files `cnn_narrow` and `cnn_full` compare logits, loss, gradients, running statistics and ten steps of
/// Adam with PyTorch's.
pub struct Cnn {
    convs: Vec<(Conv2d, BatchNorm2d)>,
    fc1: Linear,
    dropout: Dropout,
    fc2: Linear,
    config: CnnConfig,
    params: Params,
}

impl Cnn {
    /// A network with PyTorch's default initialisation, drawn from `seed`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for a configuration that makes no network.
    pub fn new(config: CnnConfig, seed: u64, dtype: DType, device: &Device) -> Result<Self> {
        config.check()?;
        let params = Params::new(seed);
        let builder = params.builder(dtype, device);
        let w = config.width;
        let mut convs = Vec::new();
        for (i, (input, output)) in [
            (3, w),
            (w, w),
            (w, 2 * w),
            (2 * w, 2 * w),
            (2 * w, 4 * w),
            (4 * w, 4 * w),
        ]
        .into_iter()
        .enumerate()
        {
            let conv = Conv2d::new(input, output, 3, SAME, &builder.pp(format!("conv{}", i + 1)))?;
            convs.push((conv, BatchNorm2d::new(output, &builder.pp(format!("bn{}", i + 1)))?));
        }
        let side = config.image_size / 8;
        let fc1 = Linear::new(4 * w * side * side, 8 * w, &builder.pp("fc1"))?;
        let fc2 = Linear::new(8 * w, config.num_classes, &builder.pp("fc2"))?;
        Ok(Self {
            convs,
            fc1,
            dropout: Dropout::new(config.dropout, 0),
            fc2,
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

    /// The three blocks, each pooled, but the last only if it is asked for.
    fn blocks(&self, tape: &mut Tape, images: &Tensor, mode: Mode, pools_last: bool) -> kestrel_kernels::Result<Value> {
        let mut x = tape.leaf(images)?;
        for (i, (conv, bn)) in self.convs.iter().enumerate() {
            let ends_block = i % 2 == 1;
            x = if ends_block && (pools_last || i + 1 < self.convs.len()) {
                conv.forward_batch_norm_relu_max_pool(tape, &x, bn, mode)?
            } else {
                conv.forward_batch_norm(tape, &x, bn, Activation::Relu, mode)?
            };
        }
        Ok(x)
    }

    /// From the pooled blocks to what dropout and the last layer take.
    fn hidden(&self, tape: &mut Tape, pooled: &Value) -> kestrel_kernels::Result<Value> {
        let x = tape.flatten(pooled)?;
        self.fc1.forward_relu(tape, &x)
    }

    fn logits(&self, tape: &mut Tape, hidden: &Value, mode: Mode) -> kestrel_kernels::Result<Value> {
        let hidden = self.dropout.forward(tape, hidden, mode)?;
        self.fc2.forward(tape, &hidden)
    }
}

impl Model for Cnn {
    fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        let images = self.enter(images)?;
        mode.section(|tape| {
            let pooled = self.blocks(tape, &images, mode, true)?;
            let hidden = self.hidden(tape, &pooled)?;
            self.logits(tape, &hidden, mode)
        })
    }

    fn features(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        let images = self.enter(images)?;
        mode.section(|tape| {
            let pooled = self.blocks(tape, &images, mode, true)?;
            self.hidden(tape, &pooled)
        })
    }

    fn classify(&self, features: &Tensor, mode: Mode) -> Result<Tensor> {
        mode.section(|tape| {
            let hidden = tape.leaf(features)?;
            self.logits(tape, &hidden, mode)
        })
    }

    fn feature_map(&self, images: &Tensor) -> Result<Tensor> {
        let images = self.enter(images)?;
        Mode::Eval.section(|tape| self.blocks(tape, &images, Mode::Eval, false))
    }

    fn classify_map(&self, map: &Tensor) -> Result<Tensor> {
        Ok(tape::section(|tape| {
            let map = tape.leaf(map)?;
            let pooled = tape.max_pool2d(&map, 2, 2, 0)?;
            let hidden = self.hidden(tape, &pooled)?;
            self.logits(tape, &hidden, Mode::Eval)
        })?)
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn layer_groups(&self) -> Vec<LayerGroup> {
        let group = |name, modules| LayerGroup { name, modules };
        vec![
            group("block1", &["conv1", "bn1", "conv2", "bn2"]),
            group("block2", &["conv3", "bn3", "conv4", "bn4"]),
            group("block3", &["conv5", "bn5", "conv6", "bn6"]),
            group("fc1", &["fc1"]),
            group("fc2", &["fc2"]),
        ]
    }

    fn head(&self) -> &'static str {
        "fc2"
    }

    fn num_classes(&self) -> usize {
        self.config.num_classes
    }

    fn graph(&self) -> Option<Graph> {
        let mut graph = Graph::new();
        let mut x = graph.input();
        for i in 1..=self.convs.len() {
            x = graph.conv2d(format!("conv{i}"), x, SAME);
            x = graph.batch_norm(format!("bn{i}"), x);
            x = graph.relu(format!("relu{i}"), x);
            if i % 2 == 0 {
                x = graph.max_pool(format!("pool{}", i / 2), x, (2, 2, 0));
            }
        }
        x = graph.flatten("flatten", x);
        x = graph.linear("fc1", x);
        x = graph.relu("relu7", x);
        x = graph.dropout("dropout", x, self.config.dropout);
        graph.linear("fc2", x);
        Some(graph)
    }

    fn can_be_recorded(&self) -> bool {
        true
    }
}
