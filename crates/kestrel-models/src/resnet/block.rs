//! The residual blocks.

use kestrel_kernels::Conv2dConfig;
use kestrel_kernels::channels_last::Activation;
use kestrel_kernels::tape::{Tape, Value};

use super::Depth;
use crate::graph::{Graph, Node};
use crate::init::kaiming_normal_fan_out;
use crate::layers::{BatchNorm2d, Conv2d};
use crate::{Mode, ParamBuilder, Result};

/// A residual block: `relu(residual(x) + shortcut(x))`.
pub(super) enum Block {
    Basic(BasicBlock),
    Bottleneck(Bottleneck),
}

impl Block {
    /// The block of a network of that depth, from `inputs` channels to `planes` times its [`expansion`].
    pub(super) fn new(
        depth: Depth,
        inputs: usize,
        planes: usize,
        stride: usize,
        builder: &ParamBuilder,
    ) -> Result<Self> {
        Ok(match depth {
            Depth::ResNet18 | Depth::ResNet34 => Block::Basic(BasicBlock::new(inputs, planes, stride, builder)?),
            Depth::ResNet50 => Block::Bottleneck(Bottleneck::new(inputs, planes, stride, builder)?),
        })
    }

    pub(super) fn forward(&self, tape: &mut Tape, x: &Value, mode: Mode) -> kestrel_kernels::Result<Value> {
        match self {
            Block::Basic(block) => block.forward(tape, x, mode),
            Block::Bottleneck(block) => block.forward(tape, x, mode),
        }
    }

    /// Adds the layers of the block of that name to a graph.
    pub(super) fn describe(&self, graph: &mut Graph, name: &str, x: Node) -> Node {
        let (convs, downsample) = match self {
            Block::Basic(block) => (vec![&block.first, &block.second], &block.downsample),
            Block::Bottleneck(block) => (vec![&block.first, &block.second, &block.third], &block.downsample),
        };
        let mut y = x;
        for (i, conv) in (1..).zip(&convs) {
            y = conv.describe(graph, &format!("{name}.conv{i}"), &format!("{name}.bn{i}"), y);
            if i < convs.len() {
                y = graph.relu(format!("{name}.relu{i}"), y);
            }
        }
        let shortcut = match downsample {
            Some(conv) => {
                let names = [0, 1].map(|part| format!("{name}.downsample.{part}"));
                conv.describe(graph, &names[0], &names[1], x)
            }
            None => x,
        };
        let sum = graph.add(format!("{name}.add"), y, shortcut);
        graph.relu(format!("{name}.relu{}", convs.len()), sum)
    }
}

/// How many times its planes a block puts out.
pub(super) fn expansion(depth: Depth) -> usize {
    match depth {
        Depth::ResNet18 | Depth::ResNet34 => BasicBlock::EXPANSION,
        Depth::ResNet50 => Bottleneck::EXPANSION,
    }
}

/// Two 3x3 convolutions; the first has the stride.
pub(super) struct BasicBlock {
    first: ConvNorm,
    second: ConvNorm,
    downsample: Option<ConvNorm>,
}

impl BasicBlock {
    const EXPANSION: usize = 1;

    fn new(inputs: usize, planes: usize, stride: usize, builder: &ParamBuilder) -> Result<Self> {
        Ok(Self {
            first: ConvNorm::numbered(1, inputs, planes, 3, stride, builder)?,
            second: ConvNorm::numbered(2, planes, planes, 3, 1, builder)?,
            downsample: downsample(inputs, planes * Self::EXPANSION, stride, builder)?,
        })
    }

    fn forward(&self, tape: &mut Tape, x: &Value, mode: Mode) -> kestrel_kernels::Result<Value> {
        let y = self.first.forward(tape, x, Activation::Relu, mode)?;
        let shortcut = shortcut(self.downsample.as_ref(), tape, x, mode)?;
        self.second.forward(tape, &y, Activation::AddRelu(&shortcut), mode)
    }
}

/// A 1x1, a 3x3 and a widening 1x1 convolution; the 3x3 has the stride, as in torchvision (the paper's has it in the
/// first).
pub(super) struct Bottleneck {
    first: ConvNorm,
    second: ConvNorm,
    third: ConvNorm,
    downsample: Option<ConvNorm>,
}

impl Bottleneck {
    const EXPANSION: usize = 4;

    fn new(inputs: usize, planes: usize, stride: usize, builder: &ParamBuilder) -> Result<Self> {
        let outputs = planes * Self::EXPANSION;
        Ok(Self {
            first: ConvNorm::numbered(1, inputs, planes, 1, 1, builder)?,
            second: ConvNorm::numbered(2, planes, planes, 3, stride, builder)?,
            third: ConvNorm::numbered(3, planes, outputs, 1, 1, builder)?,
            downsample: downsample(inputs, outputs, stride, builder)?,
        })
    }

    fn forward(&self, tape: &mut Tape, x: &Value, mode: Mode) -> kestrel_kernels::Result<Value> {
        let y = self.first.forward(tape, x, Activation::Relu, mode)?;
        let y = self.second.forward(tape, &y, Activation::Relu, mode)?;
        let shortcut = shortcut(self.downsample.as_ref(), tape, x, mode)?;
        self.third.forward(tape, &y, Activation::AddRelu(&shortcut), mode)
    }
}

/// What makes a block's input its output's shape, where it is not.
fn downsample(inputs: usize, outputs: usize, stride: usize, builder: &ParamBuilder) -> Result<Option<ConvNorm>> {
    if stride == 1 && inputs == outputs {
        return Ok(None);
    }
    let builder = builder.pp("downsample");
    let conv = conv(inputs, outputs, 1, stride, &builder.pp(0))?;
    let norm = BatchNorm2d::new(outputs, &builder.pp(1))?;
    Ok(Some(ConvNorm { conv, norm }))
}

fn shortcut(downsample: Option<&ConvNorm>, tape: &mut Tape, x: &Value, mode: Mode) -> kestrel_kernels::Result<Value> {
    match downsample {
        Some(downsample) => downsample.forward(tape, x, Activation::None, mode),
        None => Ok(x.clone()),
    }
}

/// A convolution without bias and the batch norm after it.
pub(super) struct ConvNorm {
    conv: Conv2d,
    norm: BatchNorm2d,
}

impl ConvNorm {
    /// `conv{number}` and `bn{number}`.
    pub(super) fn numbered(
        number: usize,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        builder: &ParamBuilder,
    ) -> Result<Self> {
        let conv = conv(inputs, outputs, kernel, stride, &builder.pp(format!("conv{number}")))?;
        let norm = BatchNorm2d::new(outputs, &builder.pp(format!("bn{number}")))?;
        Ok(Self { conv, norm })
    }

    pub(super) fn forward(
        &self,
        tape: &mut Tape,
        x: &Value,
        activation: Activation<'_>,
        mode: Mode,
    ) -> kestrel_kernels::Result<Value> {
        self.conv.forward_batch_norm(tape, x, &self.norm, activation, mode)
    }

    /// Adds the two layers to a graph under these names.
    pub(super) fn describe(&self, graph: &mut Graph, conv: &str, norm: &str, x: Node) -> Node {
        let x = graph.conv2d(conv, x, self.conv.config());
        graph.batch_norm(norm, x)
    }
}

/// A convolution padded by half its kernel.
fn conv(inputs: usize, outputs: usize, kernel: usize, stride: usize, builder: &ParamBuilder) -> Result<Conv2d> {
    let config = Conv2dConfig {
        padding: kernel / 2,
        stride,
        ..Conv2dConfig::default()
    };
    Conv2d::without_bias(inputs, outputs, kernel, config, kaiming_normal_fan_out(), builder)
}
