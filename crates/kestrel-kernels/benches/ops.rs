//! Each op's forward and backward through candle's autograd, at the sizes of the CIFAR CNN and of ResNet-18, in `f32`.
//!
//! `cargo bench -p kestrel-kernels`, or `cargo bench -p kestrel-kernels -- conv2d` for some. The number of threads is
//! rayon's: `RAYON_NUM_THREADS=1` sets it. `scripts/peer/torch_ops.py` times PyTorch on the same shapes, under the same
//! names.
//!
//! Every input is a variable, so a forward keeps what its backward needs, and a backward computes every gradient. A
//! backward is timed as candle runs it: with the gradient of ones that it starts from.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::fmt;

use candle_core::{DType, Device, Tensor, Var, backprop::GradStore};
use divan::Bencher;
use kestrel_kernels::channels_last::{Activation, BatchNorm};
use kestrel_kernels::memory::CachingAllocator;
use kestrel_kernels::{AdamConfig, BatchNormConfig, Conv2dConfig, DropoutKey, SgdConfig, channels_last, tape};

/// As the trainer: without it, an op's time is half the system's for fresh pages.
#[global_allocator]
static ALLOCATOR: CachingAllocator = CachingAllocator::new();

fn main() {
    divan::main();
}

/// A batch of images `[N, H, W, C]`, and what the op needs beside it.
#[derive(Clone, Copy)]
struct Images<T> {
    batch: usize,
    channels: usize,
    size: usize,
    op: T,
}

impl<T: fmt::Display> fmt::Display for Images<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            batch,
            channels,
            size,
            op,
        } = self;
        write!(f, "{channels}{op} @{size} batch {batch}")
    }
}

impl<T> Images<T> {
    const fn new(batch: usize, channels: usize, size: usize, op: T) -> Self {
        Self {
            batch,
            channels,
            size,
            op,
        }
    }

    fn var(&self) -> Var {
        normal(&[self.batch, self.size, self.size, self.channels])
    }
}

fn normal(shape: &[usize]) -> Var {
    Var::randn(0f32, 1f32, shape, &Device::Cpu).unwrap()
}

/// Times `op` alone.
fn forward(bencher: Bencher<'_, '_>, op: impl Fn() -> Tensor) {
    bencher.bench_local(op);
}

/// Times the backward of what `op` makes untimed.
fn backward(bencher: Bencher<'_, '_>, op: impl Fn() -> Tensor) {
    bencher.with_inputs(op).bench_local_values(gradients);
}

fn gradients(y: Tensor) -> (Tensor, GradStore) {
    // The result is given back, so that dropping it is not timed.
    let grads = y.backward().unwrap();
    (y, grads)
}

#[divan::bench_group(sample_count = 15, sample_size = 1)]
mod conv2d {
    use super::*;

    /// Output channels of a 3x3 convolution with stride 1 and padding 1.
    #[derive(Clone, Copy)]
    struct To(usize);

    impl fmt::Display for To {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "->{}", self.0)
        }
    }

    /// The CNN's, but for its first, then ResNet-18's.
    const SHAPES: [Images<To>; 9] = [
        Images::new(128, 64, 32, To(64)),
        Images::new(128, 64, 16, To(128)),
        Images::new(128, 128, 16, To(128)),
        Images::new(128, 128, 8, To(256)),
        Images::new(128, 256, 8, To(256)),
        Images::new(16, 64, 56, To(64)),
        Images::new(16, 128, 28, To(128)),
        Images::new(16, 256, 14, To(256)),
        Images::new(16, 512, 7, To(512)),
    ];

    fn op(shape: &Images<To>) -> impl Fn() -> Tensor + use<> {
        let (x, weight) = (shape.var(), normal(&[shape.op.0, shape.channels, 3, 3]));
        let config = Conv2dConfig {
            padding: 1,
            ..Conv2dConfig::default()
        };
        move || channels_last::conv2d(&x, &weight, None, &config).unwrap()
    }

    #[divan::bench(args = SHAPES)]
    fn forward(bencher: Bencher<'_, '_>, shape: &Images<To>) {
        super::forward(bencher, op(shape));
    }

    #[divan::bench(args = SHAPES)]
    fn backward(bencher: Bencher<'_, '_>, shape: &Images<To>) {
        super::backward(bencher, op(shape));
    }
}

#[divan::bench_group(sample_count = 15, sample_size = 1)]
mod conv2d_strided {
    use super::*;

    /// Output channels, kernel and stride; the padding is half of the kernel.
    #[derive(Clone, Copy)]
    struct To(usize, usize, usize);

    impl fmt::Display for To {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "->{0} {1}x{1}/{2}", self.0, self.1, self.2)
        }
    }

    /// The CNN's first, ResNet's first, then its strided ones, and a bottleneck's.
    const SHAPES: [Images<To>; 5] = [
        Images::new(128, 3, 32, To(64, 3, 1)),
        Images::new(16, 3, 224, To(64, 7, 2)),
        Images::new(16, 64, 56, To(128, 3, 2)),
        Images::new(16, 64, 56, To(128, 1, 2)),
        Images::new(16, 64, 56, To(256, 1, 1)),
    ];

    fn op(shape: &Images<To>) -> impl Fn() -> Tensor + use<> {
        let To(outputs, kernel, stride) = shape.op;
        let (x, weight) = (shape.var(), normal(&[outputs, shape.channels, kernel, kernel]));
        let config = Conv2dConfig {
            stride,
            padding: kernel / 2,
            ..Conv2dConfig::default()
        };
        move || channels_last::conv2d(&x, &weight, None, &config).unwrap()
    }

    #[divan::bench(args = SHAPES)]
    fn forward(bencher: Bencher<'_, '_>, shape: &Images<To>) {
        super::forward(bencher, op(shape));
    }

    #[divan::bench(args = SHAPES)]
    fn backward(bencher: Bencher<'_, '_>, shape: &Images<To>) {
        super::backward(bencher, op(shape));
    }
}

#[divan::bench_group(sample_count = 15, sample_size = 1)]
mod batch_norm_relu {
    use super::*;

    const SHAPES: [Images<&str>; 4] = [
        Images::new(128, 64, 32, ""),
        Images::new(128, 256, 8, ""),
        Images::new(16, 64, 56, ""),
        Images::new(16, 512, 7, ""),
    ];

    fn op(shape: &Images<&str>) -> impl Fn() -> Tensor + use<> {
        let x = shape.var();
        let [weight, bias] = [(); 2].map(|()| normal(&[shape.channels]));
        let mean = Tensor::zeros(shape.channels, DType::F32, &Device::Cpu).unwrap();
        let var = mean.ones_like().unwrap().contiguous().unwrap();
        let config = BatchNormConfig::default();
        move || channels_last::batch_norm_relu_train(&x, &weight, &bias, &mean, &var, &config).unwrap()
    }

    #[divan::bench(args = SHAPES)]
    fn forward(bencher: Bencher<'_, '_>, shape: &Images<&str>) {
        super::forward(bencher, op(shape));
    }

    #[divan::bench(args = SHAPES)]
    fn backward(bencher: Bencher<'_, '_>, shape: &Images<&str>) {
        super::backward(bencher, op(shape));
    }
}

/// The end of a residual block.
#[divan::bench_group(sample_count = 15, sample_size = 1)]
mod batch_norm_add_relu {
    use super::*;

    const SHAPES: [Images<&str>; 2] = [Images::new(16, 64, 56, ""), Images::new(16, 512, 7, "")];

    fn op(shape: &Images<&str>) -> impl Fn() -> Tensor + use<> {
        let (x, residual) = (shape.var(), shape.var());
        let [weight, bias] = [(); 2].map(|()| normal(&[shape.channels]));
        let running_mean = Tensor::zeros(shape.channels, DType::F32, &Device::Cpu).unwrap();
        let running_var = running_mean.ones_like().unwrap().contiguous().unwrap();
        move || {
            let batch_norm = BatchNorm {
                weight: &weight,
                bias: &bias,
                running_mean: &running_mean,
                running_var: &running_var,
                config: BatchNormConfig::default(),
                training: true,
            };
            tape::section(|tape| {
                let (x, residual) = (tape.leaf(&x)?, tape.leaf(&residual)?);
                tape.batch_norm(&x, &batch_norm, Activation::AddRelu(&residual))
            })
            .unwrap()
        }
    }

    #[divan::bench(args = SHAPES)]
    fn forward(bencher: Bencher<'_, '_>, shape: &Images<&str>) {
        super::forward(bencher, op(shape));
    }

    #[divan::bench(args = SHAPES)]
    fn backward(bencher: Bencher<'_, '_>, shape: &Images<&str>) {
        super::backward(bencher, op(shape));
    }
}

#[divan::bench_group(sample_count = 15, sample_size = 1)]
mod gelu {
    use super::*;

    const SHAPES: [Images<&str>; 1] = [Images::new(128, 64, 32, "")];

    fn op(shape: &Images<&str>) -> impl Fn() -> Tensor + use<> {
        let x = shape.var();
        move || kestrel_kernels::gelu(&x).unwrap()
    }

    #[divan::bench(args = SHAPES)]
    fn forward(bencher: Bencher<'_, '_>, shape: &Images<&str>) {
        super::forward(bencher, op(shape));
    }

    #[divan::bench(args = SHAPES)]
    fn backward(bencher: Bencher<'_, '_>, shape: &Images<&str>) {
        super::backward(bencher, op(shape));
    }
}

/// Windows of 2x2 side by side.
#[divan::bench_group(sample_count = 15, sample_size = 1)]
mod avg_pool2d {
    use super::*;

    const SHAPES: [Images<&str>; 1] = [Images::new(128, 64, 32, " 2x2/2")];

    fn op(shape: &Images<&str>) -> impl Fn() -> Tensor + use<> {
        let x = shape.var();
        move || channels_last::avg_pool2d(&x, 2, 2, 0, true).unwrap()
    }

    #[divan::bench(args = SHAPES)]
    fn forward(bencher: Bencher<'_, '_>, shape: &Images<&str>) {
        super::forward(bencher, op(shape));
    }

    #[divan::bench(args = SHAPES)]
    fn backward(bencher: Bencher<'_, '_>, shape: &Images<&str>) {
        super::backward(bencher, op(shape));
    }
}

/// To one pixel.
#[divan::bench_group(sample_count = 15, sample_size = 1)]
mod adaptive_avg_pool2d {
    use super::*;

    const SHAPES: [Images<&str>; 1] = [Images::new(16, 512, 7, "")];

    fn op(shape: &Images<&str>) -> impl Fn() -> Tensor + use<> {
        let x = shape.var();
        move || channels_last::adaptive_avg_pool2d(&x, (1, 1)).unwrap()
    }

    #[divan::bench(args = SHAPES)]
    fn forward(bencher: Bencher<'_, '_>, shape: &Images<&str>) {
        super::forward(bencher, op(shape));
    }

    #[divan::bench(args = SHAPES)]
    fn backward(bencher: Bencher<'_, '_>, shape: &Images<&str>) {
        super::backward(bencher, op(shape));
    }
}

#[divan::bench_group(sample_count = 15, sample_size = 1)]
mod max_pool2d {
    use super::*;

    /// Kernel and padding; the stride is 2.
    #[derive(Clone, Copy)]
    struct Window(usize, usize);

    impl fmt::Display for Window {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, " {0}x{0}/2", self.0)
        }
    }

    const SHAPES: [Images<Window>; 4] = [
        Images::new(128, 64, 32, Window(2, 0)),
        Images::new(128, 128, 16, Window(2, 0)),
        Images::new(128, 256, 8, Window(2, 0)),
        Images::new(16, 64, 112, Window(3, 1)),
    ];

    fn op(shape: &Images<Window>) -> impl Fn() -> Tensor + use<> {
        let (x, Window(kernel, padding)) = (shape.var(), shape.op);
        move || channels_last::max_pool2d(&x, kernel, 2, padding).unwrap()
    }

    #[divan::bench(args = SHAPES)]
    fn forward(bencher: Bencher<'_, '_>, shape: &Images<Window>) {
        super::forward(bencher, op(shape));
    }

    #[divan::bench(args = SHAPES)]
    fn backward(bencher: Bencher<'_, '_>, shape: &Images<Window>) {
        super::backward(bencher, op(shape));
    }
}

/// Rows, columns, and the outputs of a linear layer.
#[derive(Clone, Copy)]
struct Rows {
    batch: usize,
    columns: usize,
    outputs: Option<usize>,
}

impl Rows {
    const fn new(batch: usize, columns: usize) -> Self {
        Self {
            batch,
            columns,
            outputs: None,
        }
    }

    const fn to(batch: usize, columns: usize, outputs: usize) -> Self {
        Self {
            batch,
            columns,
            outputs: Some(outputs),
        }
    }

    /// `[N, I]`, and weight and bias of the layer.
    fn linear(&self) -> [Var; 3] {
        let outputs = self.outputs.unwrap();
        [
            vec![self.batch, self.columns],
            vec![outputs, self.columns],
            vec![outputs],
        ]
        .map(|shape| normal(&shape))
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.columns)?;
        if let Some(outputs) = self.outputs {
            write!(f, "->{outputs}")?;
        }
        write!(f, " batch {}", self.batch)
    }
}

#[divan::bench_group(sample_count = 25, sample_size = 1)]
mod linear {
    use super::*;

    const SHAPES: [Rows; 3] = [
        Rows::to(128, 4096, 512),
        Rows::to(128, 512, 10),
        Rows::to(128, 512, 1000),
    ];

    fn op(shape: &Rows) -> impl Fn() -> Tensor + use<> {
        let [x, weight, bias] = shape.linear();
        move || kestrel_kernels::linear(&x, &weight, Some(bias.as_tensor())).unwrap()
    }

    #[divan::bench(args = SHAPES)]
    fn forward(bencher: Bencher<'_, '_>, shape: &Rows) {
        super::forward(bencher, op(shape));
    }

    #[divan::bench(args = SHAPES)]
    fn backward(bencher: Bencher<'_, '_>, shape: &Rows) {
        super::backward(bencher, op(shape));
    }
}

#[divan::bench_group(sample_count = 25, sample_size = 1)]
mod linear_relu {
    use super::*;

    const SHAPES: [Rows; 1] = [Rows::to(128, 4096, 512)];

    fn op(shape: &Rows) -> impl Fn() -> Tensor + use<> {
        let [x, weight, bias] = shape.linear();
        move || kestrel_kernels::linear_relu(&x, &weight, Some(bias.as_tensor())).unwrap()
    }

    #[divan::bench(args = SHAPES)]
    fn forward(bencher: Bencher<'_, '_>, shape: &Rows) {
        super::forward(bencher, op(shape));
    }

    #[divan::bench(args = SHAPES)]
    fn backward(bencher: Bencher<'_, '_>, shape: &Rows) {
        super::backward(bencher, op(shape));
    }
}

/// Half of the elements.
#[divan::bench_group(sample_count = 25, sample_size = 1)]
mod dropout {
    use super::*;

    const SHAPES: [Rows; 1] = [Rows::new(128, 4096)];

    fn op(shape: &Rows) -> impl Fn() -> Tensor + use<> {
        let x = normal(&[shape.batch, shape.columns]);
        let key = DropoutKey {
            seed: 1,
            step: 2,
            layer: 3,
        };
        move || kestrel_kernels::dropout(&x, 0.5, key).unwrap()
    }

    #[divan::bench(args = SHAPES)]
    fn forward(bencher: Bencher<'_, '_>, shape: &Rows) {
        super::forward(bencher, op(shape));
    }

    #[divan::bench(args = SHAPES)]
    fn backward(bencher: Bencher<'_, '_>, shape: &Rows) {
        super::backward(bencher, op(shape));
    }
}

#[divan::bench_group(sample_count = 100, sample_size = 10)]
mod cross_entropy {
    use super::*;

    const SHAPES: [Rows; 2] = [Rows::new(128, 10), Rows::new(128, 1000)];

    fn op(shape: &Rows) -> impl Fn() -> Tensor + use<> {
        let logits = normal(&[shape.batch, shape.columns]);
        let targets: Vec<u32> = (0..shape.batch).map(|i| (i % shape.columns) as u32).collect();
        let targets = Tensor::new(targets, &Device::Cpu).unwrap();
        move || kestrel_kernels::cross_entropy(&logits, &targets).unwrap()
    }

    #[divan::bench(args = SHAPES)]
    fn forward(bencher: Bencher<'_, '_>, shape: &Rows) {
        super::forward(bencher, op(shape));
    }

    #[divan::bench(args = SHAPES)]
    fn backward(bencher: Bencher<'_, '_>, shape: &Rows) {
        super::backward(bencher, op(shape));
    }
}

/// One step with weight decay on a tensor of so many parameters: the CNN's largest, and one of its convolutions.
#[divan::bench(sample_count = 50, sample_size = 1, args = [2_097_152, 147_456])]
fn adam(bencher: Bencher<'_, '_>, parameters: usize) {
    let [param, grad] = [(); 2].map(|()| normal(&[parameters]));
    let [exp_avg, exp_avg_sq] = [(); 2].map(|()| Tensor::zeros(parameters, DType::F32, &Device::Cpu).unwrap());
    let config = AdamConfig {
        weight_decay: 1e-4,
        ..AdamConfig::default()
    };
    let mut step = 0;
    bencher.bench_local(|| {
        step += 1;
        kestrel_kernels::adam_step(&param, &grad, &exp_avg, &exp_avg_sq, step, &config).unwrap();
    });
}

/// One step with momentum and weight decay on a tensor of so many parameters.
#[divan::bench(sample_count = 50, sample_size = 1, args = [2_097_152, 147_456])]
fn sgd(bencher: Bencher<'_, '_>, parameters: usize) {
    let [param, grad] = [(); 2].map(|()| normal(&[parameters]));
    let buffer = Tensor::zeros(parameters, DType::F32, &Device::Cpu).unwrap();
    let config = SgdConfig {
        momentum: 0.9,
        weight_decay: 1e-4,
        ..SgdConfig::default()
    };
    let mut step = 0;
    bencher.bench_local(|| {
        step += 1;
        kestrel_kernels::sgd_step(&param, &grad, Some(&buffer), step, &config).unwrap();
    });
}
