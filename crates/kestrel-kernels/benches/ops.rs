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
use kestrel_kernels::memory::CachingAllocator;
use kestrel_kernels::{AdamConfig, BatchNormConfig, Conv2dConfig, channels_last};

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

    const fn shape(batch: usize, columns: usize, outputs: usize) -> Rows {
        Rows {
            batch,
            columns,
            outputs: Some(outputs),
        }
    }

    const SHAPES: [Rows; 3] = [shape(128, 4096, 512), shape(128, 512, 10), shape(128, 512, 1000)];

    fn op(shape: &Rows) -> impl Fn() -> Tensor + use<> {
        let outputs = shape.outputs.unwrap();
        let (x, weight, bias) = (
            normal(&[shape.batch, shape.columns]),
            normal(&[outputs, shape.columns]),
            normal(&[outputs]),
        );
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

#[divan::bench_group(sample_count = 100, sample_size = 10)]
mod cross_entropy {
    use super::*;

    const fn shape(batch: usize, columns: usize) -> Rows {
        Rows {
            batch,
            columns,
            outputs: None,
        }
    }

    const SHAPES: [Rows; 2] = [shape(128, 10), shape(128, 1000)];

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
