//! The kernels alone, in someone else's candle program: a model of `candle_nn` whose convolution, pooling and loss are
//! exchanged, while its `VarMap`, its linear layer and its optimiser stay as they are.
//!
//!     cargo run --release --example candle_model

use std::error::Error;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Conv2d, Linear, Module, Optimizer, SGD, VarBuilder, VarMap};
use kestrel_kernels::{Conv2dConfig, conv2d, cross_entropy, max_pool2d};

struct LeNet {
    conv1: Conv2d,
    conv2: Conv2d,
    fc: Linear,
}

impl LeNet {
    fn new(vb: VarBuilder<'_>) -> Result<Self> {
        let config = candle_nn::Conv2dConfig {
            padding: 1,
            ..Default::default()
        };
        Ok(Self {
            conv1: candle_nn::conv2d(1, 8, 3, config, vb.pp("conv1"))?,
            conv2: candle_nn::conv2d(8, 16, 3, config, vb.pp("conv2"))?,
            fc: candle_nn::linear(16 * 4 * 4, 2, vb.pp("fc"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // Before: `x.apply(&self.conv1)?.relu()?.max_pool2d(2)?`, whose backward is slow, and wrong in the pooling.
        let x = pool(&convolve(&self.conv1, x)?.relu()?)?;
        let x = pool(&convolve(&self.conv2, &x)?.relu()?)?;
        self.fc.forward(&x.flatten_from(1)?)
    }
}

/// candle's layer by the kernel of this crate.
fn convolve(layer: &Conv2d, x: &Tensor) -> Result<Tensor> {
    let config = layer.config();
    let config = Conv2dConfig {
        stride: config.stride,
        padding: config.padding,
        dilation: config.dilation,
        groups: config.groups,
    };
    // `?` makes an error of the kernel one of candle's.
    Ok(conv2d(x, layer.weight(), layer.bias(), &config)?)
}

fn pool(x: &Tensor) -> Result<Tensor> {
    Ok(max_pool2d(x, 2, 2, 0)?)
}

/// Pictures of stripes, upright or lying: `[N, 1, 16, 16]` and the class of each.
fn stripes(n: usize) -> Result<(Tensor, Tensor)> {
    let pixel = |i: usize, at: usize| {
        let along = if i.is_multiple_of(2) { at % 16 } else { at / 16 };
        if (along + i / 2) % 4 < 2 { 1f32 } else { -1f32 }
    };
    let pixels: Vec<f32> = (0..n).flat_map(|i| (0..256).map(move |at| pixel(i, at))).collect();
    let targets: Vec<u32> = (0..n as u32).map(|i| i % 2).collect();
    let images = Tensor::from_vec(pixels, (n, 1, 16, 16), &Device::Cpu)?;
    Ok((images, Tensor::from_vec(targets, n, &Device::Cpu)?))
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let variables = VarMap::new();
    let model = LeNet::new(VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    let mut optimizer = SGD::new(variables.all_vars(), 0.05)?;
    let (images, targets) = stripes(32)?;
    let mut losses = Vec::new();
    for _ in 0..60 {
        let loss = cross_entropy(&model.forward(&images)?, &targets)?;
        // candle's own backward runs through the kernels.
        optimizer.backward_step(&loss)?;
        losses.push(loss.to_scalar::<f32>()?);
    }
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    println!("loss {first:.4} at first, {last:.4} after {} steps", losses.len());
    if last.is_nan() || last > 0.1 * first {
        return Err("it has not learnt stripes".into());
    }
    Ok(())
}

#[test]
fn it_learns() -> std::result::Result<(), Box<dyn Error>> {
    main()
}
