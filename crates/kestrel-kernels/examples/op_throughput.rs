//! Times each op at the sizes of a CIFAR network, batch 128, f32: median of seven runs and their range.
//!
//! `cargo run --release -p kestrel-kernels --example op_throughput`. A backward is timed as candle runs it, so it includes
//! what candle does beside the op: a gradient of ones, one of zeros for each argument, and their sum.

use candle_core::{DType, Device, Module, Result, Tensor, Var};
use kestrel_kernels::{
    AdamConfig, BatchNormConfig, Conv2dConfig, DropoutKey, SgdConfig, adam_step, adaptive_avg_pool2d, avg_pool2d,
    batch_norm_train, conv2d, cross_entropy, dropout, linear, linear_relu, max_pool2d, relu, sgd_step,
};
use std::time::Instant;

const BATCH: usize = 128;
const RUNS: usize = 7;

fn main() -> Result<()> {
    println!(
        "batch {BATCH}, {} threads; milliseconds, median (least to most)",
        rayon::current_num_threads()
    );
    for (input, output, size, kernel) in [
        (3, 64, 32, 3),
        (64, 64, 32, 3),
        (64, 128, 16, 3),
        (128, 128, 16, 3),
        (128, 256, 8, 3),
        (256, 256, 8, 3),
        (64, 128, 16, 1),
    ] {
        time_conv2d(input, output, size, kernel)?;
    }
    time_others()
}

fn time_conv2d(input: usize, output: usize, size: usize, kernel: usize) -> Result<()> {
    let config = Conv2dConfig {
        padding: kernel / 2,
        ..Conv2dConfig::default()
    };
    let (x, weight) = (
        normal(&[BATCH, input, size, size])?,
        normal(&[output, input, kernel, kernel])?,
    );
    let (x_const, weight_const) = (x.as_detached_tensor(), weight.as_detached_tensor());
    let flop = 2.0 * (BATCH * input * output * size * size * kernel * kernel) as f64;
    let name = |pass: &str| format!("conv2d {input}->{output}@{size} {kernel}x{kernel} {pass}");
    let op = |x: &Tensor, weight: &Tensor| Ok(conv2d(x, weight, None, &config)?);
    time(
        &name("forward"),
        Some(flop),
        || Ok(()),
        |()| op(&x_const, &weight_const),
    )?;
    time(
        &name("backward-data"),
        Some(flop),
        || op(&x, &weight_const),
        |y| y.backward(),
    )?;
    time(
        &name("backward-weight"),
        Some(flop),
        || op(&x_const, &weight),
        |y| y.backward(),
    )
}

fn time_others() -> Result<()> {
    let shape = [BATCH, 64, 32, 32];
    let (x, weight, bias) = (normal(&shape)?, normal(&shape[1..2])?, normal(&shape[1..2])?);
    let (mean, var) = (weight.zeros_like()?, weight.ones_like()?);
    let key = DropoutKey {
        seed: 1,
        step: 2,
        layer: 3,
    };
    type Op<'a> = (&'a str, Box<dyn Fn() -> Result<Tensor> + 'a>);
    let ops: [Op<'_>; 7] = [
        ("identity (candle's share)", Box::new(|| x.affine(1.0, 0.0))),
        (
            "batch_norm_train",
            Box::new(|| {
                Ok(batch_norm_train(
                    &x,
                    &weight,
                    &bias,
                    &mean,
                    &var,
                    &BatchNormConfig::default(),
                )?)
            }),
        ),
        ("relu", Box::new(|| Ok(relu(&x)?))),
        ("max_pool2d 2x2", Box::new(|| Ok(max_pool2d(&x, 2, 2, 0)?))),
        ("avg_pool2d 2x2", Box::new(|| Ok(avg_pool2d(&x, 2, 2, 0, true)?))),
        (
            "adaptive_avg_pool2d 1x1",
            Box::new(|| Ok(adaptive_avg_pool2d(&x, (1, 1))?)),
        ),
        ("dropout", Box::new(|| Ok(dropout(&x, 0.5, key)?))),
    ];
    for (name, op) in &ops {
        time(&format!("{name} forward"), None, || Ok(()), |()| op())?;
        time(&format!("{name} backward"), None, op, |y| y.backward())?;
    }
    let (x, weight) = (normal(&[BATCH, 4096])?, normal(&[256, 4096])?);
    let candle_linear = candle_nn::Linear::new(weight.as_tensor().clone(), None);
    let flop = 2.0 * (BATCH * 4096 * 256) as f64;
    time(
        "candle's linear 4096->256 forward",
        Some(flop),
        || Ok(()),
        |()| candle_linear.forward(&x),
    )?;
    time(
        "candle's linear 4096->256 backward",
        Some(2.0 * flop),
        || candle_linear.forward(&x),
        |y| y.backward(),
    )?;
    let op = || Ok(linear(&x, &weight, None)?);
    time("linear 4096->256 forward", Some(flop), || Ok(()), |()| op())?;
    time("linear 4096->256 backward", Some(2.0 * flop), op, |y| y.backward())?;
    let op = || Ok(linear_relu(&x, &weight, None)?);
    time("linear_relu 4096->256 forward", Some(flop), || Ok(()), |()| op())?;
    time("linear_relu 4096->256 backward", Some(2.0 * flop), op, |y| y.backward())?;
    let logits = normal(&[BATCH, 10])?;
    let targets = Tensor::zeros(BATCH, DType::U32, &Device::Cpu)?;
    time(
        "cross_entropy forward + backward",
        None,
        || Ok(()),
        |()| cross_entropy(&logits, &targets)?.backward(),
    )?;
    let param = normal(&[2_000_000])?;
    let (grad, m, v) = (
        param.ones_like()?.contiguous()?,
        param.zeros_like()?,
        param.zeros_like()?,
    );
    time(
        "adam_step of 2M parameters",
        None,
        || Ok(()),
        |()| Ok(adam_step(&param, &grad, &m, &v, 1, &AdamConfig::default())?),
    )?;
    let config = SgdConfig {
        momentum: 0.9,
        weight_decay: 1e-4,
        ..SgdConfig::default()
    };
    time(
        "sgd_step of 2M parameters",
        None,
        || Ok(()),
        |()| Ok(sgd_step(&param, &grad, Some(&m), 2, &config)?),
    )
}

fn normal(shape: &[usize]) -> Result<Var> {
    Var::randn(0f32, 1f32, shape, &Device::Cpu)
}

/// Times `run`, given what `prepare` makes untimed; the first run is not counted.
fn time<A, B>(
    name: &str,
    flop: Option<f64>,
    prepare: impl Fn() -> Result<A>,
    run: impl Fn(A) -> Result<B>,
) -> Result<()> {
    let mut seconds = Vec::with_capacity(RUNS);
    for i in 0..=RUNS {
        let input = prepare()?;
        let start = Instant::now();
        let _output = run(input)?;
        if i > 0 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let [least, median, most] = [seconds[0], seconds[RUNS / 2], seconds[RUNS - 1]].map(|s| s * 1e3);
    let rate = flop.map_or(String::new(), |flop| format!("  {:6.1} GFLOP/s", flop / median * 1e-6));
    println!("{name:<44}{median:7.2} ({least:.2} to {most:.2}){rate}");
    Ok(())
}
