//! Graphs: what a model says of its layers is what it computes, and has the sizes that are known.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Tensor};
use kestrel_models::graph::{Graph, Op, Summary};
use kestrel_models::layers::{Conv2dConfig, Linear};
use kestrel_models::{
    Cnn, CnnConfig, Depth, Error, Mode, Model, ModelConfig, Params, ResNet, ResNetConfig, StateDict, Stem, WhitenedCnn,
    WhitenedCnnConfig,
};

use crate::cnn_golden::{error, values};
use crate::formula::{fill, images};

/// Runs a graph by candle's own ops.
fn run(graph: &Graph, dict: &StateDict, images: &Tensor) -> Tensor {
    let mut outputs: Vec<Tensor> = Vec::new();
    for layer in graph.layers() {
        let input = |i: usize| &outputs[graph.index(layer.inputs[i])];
        let get = |leaf: &str| dict.get(&format!("{}.{leaf}", layer.name));
        let per_channel = |leaf: &str| get(leaf).unwrap().reshape((1, (), 1, 1)).unwrap();
        let output = match layer.op {
            Op::Input => images.clone(),
            Op::Conv2d(c) => {
                let weight = get("weight").unwrap();
                let y = input(0).conv2d(weight, c.padding, c.stride, c.dilation, c.groups);
                match get("bias") {
                    Some(_) => y.unwrap().broadcast_add(&per_channel("bias")).unwrap(),
                    None => y.unwrap(),
                }
            }
            Op::BatchNorm2d { eps } => {
                let centred = input(0).broadcast_sub(&per_channel("running_mean")).unwrap();
                let deviation = (per_channel("running_var") + eps).unwrap().sqrt().unwrap();
                let normal = centred.broadcast_div(&deviation).unwrap();
                let scaled = normal.broadcast_mul(&per_channel("weight")).unwrap();
                scaled.broadcast_add(&per_channel("bias")).unwrap()
            }
            Op::Relu => input(0).relu().unwrap(),
            Op::Gelu => input(0).gelu_erf().unwrap(),
            Op::MaxPool2d {
                kernel,
                stride,
                padding,
            } => {
                // What comes here is never below 0, so that a frame of zeros takes no maximum's place.
                let x = input(0).pad_with_zeros(2, padding, padding).unwrap();
                let x = x.pad_with_zeros(3, padding, padding).unwrap();
                x.max_pool2d_with_stride(kernel, stride).unwrap()
            }
            Op::GlobalAvgPool2d => {
                let x = input(0).mean_keepdim(D::Minus1).unwrap();
                x.mean_keepdim(D::Minus2).unwrap()
            }
            Op::Add => (input(0) + input(1)).unwrap(),
            Op::Flatten => input(0).flatten_from(1).unwrap(),
            Op::Dropout { .. } => input(0).clone(),
            Op::Linear => {
                let y = input(0).matmul(&get("weight").unwrap().t().unwrap()).unwrap();
                get("bias").map_or_else(|| y.clone(), |bias| y.broadcast_add(bias).unwrap())
            }
            Op::Scale { factor } => (input(0) * factor).unwrap(),
        };
        outputs.push(output);
    }
    outputs.pop().unwrap()
}

/// A graph gives the model's logits, and its shapes are those of every output.
fn agrees(model: &dyn Model, size: usize) {
    let dict = model.params().state_dict().unwrap();
    let graph = model.graph().unwrap();
    let images = images(2, size, DType::F32);
    let (got, want) = (run(&graph, &dict, &images), model.forward(&images, Mode::Eval).unwrap());
    assert!(error(&values(&got), &values(&want), 0.0) < 1e-5);
    let shapes = graph.shapes(&dict, size, size).unwrap();
    assert_eq!(shapes.last().unwrap(), &[model.num_classes()]);
}

#[test]
fn graphs_compute_what_the_models_do() {
    let cnn = CnnConfig {
        width: 4,
        ..CnnConfig::new(3)
    };
    let cnn = Cnn::new(cnn, 0, DType::F32, &Device::Cpu).unwrap();
    fill(cnn.params(), DType::F32, 1.0);
    agrees(&cnn, 32);
    let whitened = WhitenedCnnConfig {
        width: 4,
        ..WhitenedCnnConfig::new(3)
    };
    let whitened = WhitenedCnn::new(whitened, 0, DType::F32, &Device::Cpu).unwrap();
    fill(whitened.params(), DType::F32, 1.0);
    agrees(&whitened, 32);
    for (depth, stem, size) in [
        (Depth::ResNet18, Stem::Imagenet, 64),
        (Depth::ResNet18, Stem::Cifar, 16),
        (Depth::ResNet50, Stem::Imagenet, 32),
    ] {
        let config = ResNetConfig {
            stem,
            ..ResNetConfig::new(depth, 5)
        };
        let net = ResNet::new(config, 0, DType::F32, &Device::Cpu).unwrap();
        let gain = if depth == Depth::ResNet50 { 3.0 } else { 6.0 };
        fill(net.params(), DType::F32, gain);
        agrees(&net, size);
    }
}

/// torchvision's documentation of its weights says these parameters and operations (`num_params`, and `_ops` in 1e9).
#[test]
fn summaries_have_torchvisions_numbers() {
    for (name, parameters, mega_macs) in [
        ("resnet18", 11_689_512, 1_814),
        ("resnet34", 21_797_672, 3_664),
        ("resnet50", 25_557_032, 4_089),
    ] {
        let model = ModelConfig::by_name(name, 1000).unwrap();
        let model = model.build(0, DType::F32, &Device::Cpu).unwrap();
        let summary = Summary::of(model.as_ref(), 224, 224).unwrap();
        assert_eq!(summary.parameters, parameters);
        assert_eq!(summary.parameters, model.params().num_parameters());
        assert_eq!((summary.macs + 500_000) / 1_000_000, mega_macs, "{name}");
    }
}

#[test]
fn a_row_says_shape_parameters_and_multiplications() {
    let model = ModelConfig::by_name("resnet18", 1000).unwrap();
    let model = model.build(0, DType::F32, &Device::Cpu).unwrap();
    let summary = Summary::of(model.as_ref(), 224, 224).unwrap();
    let rows: BTreeMap<&str, _> = summary.layers.iter().map(|row| (row.name.as_str(), row)).collect();
    assert_eq!(rows.len(), summary.layers.len());
    let row = |name: &str| {
        (
            rows[name].kind,
            rows[name].output.clone(),
            rows[name].parameters,
            rows[name].macs,
        )
    };
    assert_eq!(row("image"), ("Input", vec![3, 224, 224], 0, 0));
    // 64 x 3 x 7 x 7 weights, each at 112 x 112 places.
    assert_eq!(row("conv1"), ("Conv2d", vec![64, 112, 112], 9_408, 118_013_952));
    assert_eq!(row("bn1"), ("BatchNorm2d", vec![64, 112, 112], 128, 0));
    assert_eq!(row("maxpool"), ("MaxPool2d", vec![64, 56, 56], 0, 0));
    assert_eq!(
        row("layer2.0.downsample.0"),
        ("Conv2d", vec![128, 28, 28], 8_192, 6_422_528)
    );
    assert_eq!(row("avgpool"), ("AdaptiveAvgPool2d", vec![512, 1, 1], 0, 0));
    assert_eq!(row("fc"), ("Linear", vec![1000], 513_000, 512_000));
}

/// A model of someone else's, whose graph can be made wrong.
struct Own {
    params: Params,
    linear: Linear,
    graph: Option<Graph>,
}

impl Own {
    fn new(graph: impl FnOnce(&mut Graph)) -> Self {
        let params = Params::new(0);
        let builder = params.builder(DType::F32, &Device::Cpu);
        let linear = Linear::new(3 * 4 * 4, 2, &builder.pp("fc")).unwrap();
        let mut described = Graph::new();
        graph(&mut described);
        Self {
            params,
            linear,
            graph: Some(described),
        }
    }
}

impl Model for Own {
    fn forward(&self, images: &Tensor, mode: Mode) -> kestrel_models::Result<Tensor> {
        let images = images.flatten_from(1)?;
        mode.section(|tape| {
            let x = tape.leaf(&images)?;
            self.linear.forward(tape, &x)
        })
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn num_classes(&self) -> usize {
        2
    }

    fn graph(&self) -> Option<Graph> {
        self.graph.clone()
    }
}

#[test]
fn a_graph_that_is_not_the_models_is_told_by_its_layer() {
    let good = Own::new(|graph| {
        let x = graph.input();
        let x = graph.flatten("flatten", x);
        graph.linear("fc", x);
    });
    agrees(&good, 4);
    assert_eq!(Summary::of(&good, 4, 4).unwrap().macs, 96);
    /// What makes a graph wrong, and a word of the error.
    type Wrong<'a> = (&'a dyn Fn(&mut Graph), &'a str);
    let wrong: [Wrong<'_>; 5] = [
        (
            &|graph| {
                graph.input();
            },
            "fc.bias is in the state dict",
        ),
        (
            &|graph| {
                let x = graph.input();
                graph.linear("fc", x);
            },
            "fc cannot take [[3, 4, 4]] with weights [2, 48]",
        ),
        (
            &|graph| {
                let x = graph.input();
                let x = graph.flatten("fc", x);
                graph.linear("fc", x);
            },
            "fc has another layer's name",
        ),
        (
            &|graph| {
                let x = graph.input();
                let x = graph.conv2d("conv", x, Conv2dConfig::default());
                let x = graph.flatten("flatten", x);
                graph.linear("fc", x);
            },
            "conv has no weight in the state dict",
        ),
        (
            &|graph| {
                let x = graph.input();
                let y = graph.max_pool("pool", x, (2, 2, 0));
                let x = graph.add("add", x, y);
                let x = graph.flatten("flatten", x);
                graph.linear("fc", x);
            },
            "add cannot take [[3, 4, 4], [3, 2, 2]]",
        ),
    ];
    for (graph, want) in wrong {
        let error = Summary::of(&Own::new(graph), 4, 4).unwrap_err();
        assert!(
            matches!(error, Error::Graph { .. }) && error.to_string().contains(want),
            "{error}"
        );
    }
    // Images that a network is too large for.
    let error = Summary::of(&good, 2, 2).unwrap_err().to_string();
    assert!(error.contains("fc cannot take [[12]]"), "{error}");
    let silent = Own {
        graph: None,
        ..Own::new(|_| ())
    };
    assert!(matches!(Summary::of(&silent, 4, 4), Err(Error::NoGraph)));
}
