//! A network as a list of named layers, for those who look at one without running it: summaries and exports.
//!
//! A layer's parameters are not held here: they are found in a state dict under its name, `NAME.weight` and so on. A model says
//! its graph by [`Model::graph`](crate::Model::graph):
//!
//! ```
//! use kestrel_kernels::Conv2dConfig;
//! use kestrel_models::graph::Graph;
//!
//! let mut graph = Graph::new();
//! let x = graph.input();
//! let x = graph.conv2d("conv1", x, Conv2dConfig::default());
//! let x = graph.batch_norm("bn1", x);
//! let x = graph.relu("relu", x);
//! let x = graph.global_avg_pool("avgpool", x);
//! let x = graph.flatten("flatten", x);
//! graph.linear("fc", x);
//! assert_eq!(graph.layers().len(), 7);
//! ```

mod shapes;
mod summary;

pub use summary::{LayerSummary, Summary};

use kestrel_kernels::Conv2dConfig;

/// A network's layers in the order in which they run; the last gives the logits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    layers: Vec<Layer>,
}

/// A layer of a [`Graph`]: its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(usize);

/// One layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Its name, that of its parameters; no other layer has it.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// Whose outputs it takes.
    pub inputs: Vec<Node>,
}

/// What a layer does, with PyTorch's meaning of every parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// The images.
    Input,
    /// `nn.Conv2d`, with `weight` and perhaps `bias`.
    Conv2d(Conv2dConfig),
    /// `nn.BatchNorm2d` in evaluation, with `weight`, `bias`, `running_mean` and `running_var`.
    BatchNorm2d {
        /// What is added to the variance.
        eps: f64,
    },
    /// `nn.ReLU`.
    Relu,
    /// `nn.GELU`, by the error function.
    Gelu,
    /// `nn.MaxPool2d`.
    MaxPool2d {
        /// Side of a window.
        kernel: usize,
        /// Distance between neighbouring windows.
        stride: usize,
        /// Rows and columns added on each side, which no maximum is taken from.
        padding: usize,
    },
    /// `nn.AdaptiveAvgPool2d(1)`.
    GlobalAvgPool2d,
    /// The sum of two layers' outputs.
    Add,
    /// `nn.Flatten`.
    Flatten,
    /// `nn.Dropout`, which does nothing in evaluation.
    Dropout {
        /// The probability of dropping a unit in training.
        p: f64,
    },
    /// `nn.Linear`, with `weight` and perhaps `bias`.
    Linear,
    /// Every value times `factor`.
    Scale {
        /// A number that is not trained.
        factor: f64,
    },
}

impl Op {
    /// PyTorch's name of it.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input => "Input",
            Op::Conv2d(_) => "Conv2d",
            Op::BatchNorm2d { .. } => "BatchNorm2d",
            Op::Relu => "ReLU",
            Op::Gelu => "GELU",
            Op::MaxPool2d { .. } => "MaxPool2d",
            Op::GlobalAvgPool2d => "AdaptiveAvgPool2d",
            Op::Add => "Add",
            Op::Flatten => "Flatten",
            Op::Dropout { .. } => "Dropout",
            Op::Linear => "Linear",
            Op::Scale { .. } => "Scale",
        }
    }

    /// The parameters and buffers that it has in any case, and those that it may have.
    pub(crate) fn parameters(&self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Op::Conv2d(_) | Op::Linear => (&["weight"], &["bias"]),
            Op::BatchNorm2d { .. } => (&["weight", "bias", "running_mean", "running_var"], &[]),
            _ => (&[], &[]),
        }
    }
}

impl Graph {
    /// A graph without layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The layers in the order in which they run.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The place of a layer in [`layers`](Self::layers).
    pub fn index(&self, node: Node) -> usize {
        node.0
    }

    /// Adds a layer that takes the outputs of `inputs`.
    pub fn push(&mut self, name: impl Into<String>, op: Op, inputs: &[Node]) -> Node {
        self.layers.push(Layer {
            name: name.into(),
            op,
            inputs: inputs.to_vec(),
        });
        Node(self.layers.len() - 1)
    }

    /// The images `[N, 3, H, W]`.
    pub fn input(&mut self) -> Node {
        self.push("image", Op::Input, &[])
    }

    /// [`Op::Conv2d`].
    pub fn conv2d(&mut self, name: impl Into<String>, x: Node, config: Conv2dConfig) -> Node {
        self.push(name, Op::Conv2d(config), &[x])
    }

    /// [`Op::BatchNorm2d`] with PyTorch's eps, 1e-5.
    pub fn batch_norm(&mut self, name: impl Into<String>, x: Node) -> Node {
        self.push(name, Op::BatchNorm2d { eps: 1e-5 }, &[x])
    }

    /// [`Op::Relu`].
    pub fn relu(&mut self, name: impl Into<String>, x: Node) -> Node {
        self.push(name, Op::Relu, &[x])
    }

    /// [`Op::Gelu`].
    pub fn gelu(&mut self, name: impl Into<String>, x: Node) -> Node {
        self.push(name, Op::Gelu, &[x])
    }

    /// [`Op::MaxPool2d`].
    pub fn max_pool(
        &mut self,
        name: impl Into<String>,
        x: Node,
        (kernel, stride, padding): (usize, usize, usize),
    ) -> Node {
        let op = Op::MaxPool2d {
            kernel,
            stride,
            padding,
        };
        self.push(name, op, &[x])
    }

    /// [`Op::GlobalAvgPool2d`].
    pub fn global_avg_pool(&mut self, name: impl Into<String>, x: Node) -> Node {
        self.push(name, Op::GlobalAvgPool2d, &[x])
    }

    /// [`Op::Add`].
    pub fn add(&mut self, name: impl Into<String>, x: Node, y: Node) -> Node {
        self.push(name, Op::Add, &[x, y])
    }

    /// [`Op::Flatten`].
    pub fn flatten(&mut self, name: impl Into<String>, x: Node) -> Node {
        self.push(name, Op::Flatten, &[x])
    }

    /// [`Op::Dropout`].
    pub fn dropout(&mut self, name: impl Into<String>, x: Node, p: f64) -> Node {
        self.push(name, Op::Dropout { p }, &[x])
    }

    /// [`Op::Linear`].
    pub fn linear(&mut self, name: impl Into<String>, x: Node) -> Node {
        self.push(name, Op::Linear, &[x])
    }

    /// [`Op::Scale`].
    pub fn scale(&mut self, name: impl Into<String>, x: Node, factor: f64) -> Node {
        self.push(name, Op::Scale { factor }, &[x])
    }
}
