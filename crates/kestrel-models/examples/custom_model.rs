//! A network of one's own: a few lines of layers, and it trains, freezes, saves, loads and leaves for ONNX as the built-in ones do.
//!
//!     cargo run --release --example custom_model

use std::error::Error;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Optimizer, SGD};
use kestrel_kernels::channels_last::Activation;
use kestrel_kernels::{Conv2dConfig, cross_entropy};
use kestrel_models::graph::Graph;
use kestrel_models::layers::{BatchNorm2d, Conv2d, Linear, to_channels_last};
use kestrel_models::{LayerGroup, Mode, Model, Params, Result, onnx};

/// Two convolutions, the mean over the image, a linear layer.
struct Small {
    params: Params,
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: Conv2d,
    bn2: BatchNorm2d,
    fc: Linear,
}

const SAME: Conv2dConfig = Conv2dConfig {
    stride: 1,
    padding: 1,
    dilation: 1,
    groups: 1,
};

impl Small {
    fn new(num_classes: usize, seed: u64) -> Result<Self> {
        // The names are those of the state dict: a PyTorch module with the same attributes takes the weights as they are.
        let params = Params::new(seed);
        let names = params.builder(DType::F32, &Device::Cpu);
        Ok(Self {
            conv1: Conv2d::new(3, 8, 3, SAME, &names.pp("conv1"))?,
            bn1: BatchNorm2d::new(8, &names.pp("bn1"))?,
            conv2: Conv2d::new(8, 16, 3, SAME, &names.pp("conv2"))?,
            bn2: BatchNorm2d::new(16, &names.pp("bn2"))?,
            fc: Linear::new(16, num_classes, &names.pp("fc"))?,
            params,
        })
    }
}

impl Model for Small {
    fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        let images = to_channels_last(images)?;
        // One op to candle's autograd, fused inside.
        mode.section(|tape| {
            let x = tape.leaf(&images)?;
            let x = self
                .conv1
                .forward_batch_norm(tape, &x, &self.bn1, Activation::Relu, mode)?;
            let x = tape.max_pool2d(&x, 2, 2, 0)?;
            let x = self
                .conv2
                .forward_batch_norm(tape, &x, &self.bn2, Activation::Relu, mode)?;
            let x = tape.adaptive_avg_pool2d(&x, (1, 1))?;
            let x = tape.flatten(&x)?;
            self.fc.forward(tape, &x)
        })
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn num_classes(&self) -> usize {
        self.params
            .all()
            .iter()
            .find(|(name, _)| name == "fc.bias")
            .map_or(0, |(_, bias)| bias.elem_count())
    }

    // The rest is optional: what may be frozen and thawed, and the layers for summaries and ONNX.

    fn layer_groups(&self) -> Vec<LayerGroup> {
        let group = |name, modules| LayerGroup { name, modules };
        vec![group("trunk", &["conv1", "bn1", "conv2", "bn2"]), group("fc", &["fc"])]
    }

    fn head(&self) -> &'static str {
        "fc"
    }

    fn graph(&self) -> Option<Graph> {
        let mut graph = Graph::new();
        let mut x = graph.input();
        for i in 1..=2 {
            x = graph.conv2d(format!("conv{i}"), x, SAME);
            x = graph.batch_norm(format!("bn{i}"), x);
            x = graph.relu(format!("relu{i}"), x);
            if i == 1 {
                x = graph.max_pool("pool", x, (2, 2, 0));
            }
        }
        x = graph.global_avg_pool("avgpool", x);
        x = graph.flatten("flatten", x);
        graph.linear("fc", x);
        Some(graph)
    }
}

/// Pictures of stripes, upright or lying: `[N, 3, 16, 16]` and the class of each.
fn stripes(n: usize) -> Result<(Tensor, Tensor)> {
    let (mut pixels, mut targets) = (Vec::new(), Vec::new());
    for i in 0..n {
        let class = i % 2;
        for at in 0..3 * 16 * 16 {
            let along = if class == 0 { at % 16 } else { at / 16 % 16 };
            pixels.push(if (along + i / 2) % 4 < 2 { 1f32 } else { -1f32 });
        }
        targets.push(class as u32);
    }
    let images = Tensor::from_vec(pixels, (n, 3, 16, 16), &Device::Cpu)?;
    Ok((images, Tensor::from_vec(targets, n, &Device::Cpu)?))
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let model = Small::new(2, 0)?;
    let (images, targets) = stripes(32)?;
    // Any of candle's optimisers will do; kestrel-train has more of them, and the loop around.
    let vars = model.params().trainable().into_iter().map(|(_, var)| var).collect();
    let mut optimizer = SGD::new(vars, 0.1)?;
    let mut loss = f32::INFINITY;
    for step in 0..40 {
        let logits = model.forward(&images, Mode::Train { seed: 0, step })?;
        let batch_loss = cross_entropy(&logits, &targets)?;
        optimizer.backward_step(&batch_loss)?;
        loss = batch_loss.to_scalar()?;
    }
    let answers = model.forward(&images, Mode::Eval)?.argmax(1)?;
    let right = answers
        .eq(&targets)?
        .to_dtype(DType::U32)?
        .sum_all()?
        .to_scalar::<u32>()?;
    println!(
        "{} parameters, loss {loss:.4}, {right} of 32 right",
        model.params().num_parameters()
    );
    let file = onnx::export(&model, 16, &[("classes", r#"["upright", "lying"]"#.to_owned())])?;
    println!("as ONNX: {} bytes", file.len());
    if right < 32 {
        return Err("it has not learnt stripes".into());
    }
    Ok(())
}

#[test]
fn it_learns() -> std::result::Result<(), Box<dyn Error>> {
    main()
}
