//! Prints the nominal GFLOP/s of each pass of `conv2d` on a CIFAR network's layers, batch 128, f32: median of seven runs
//! and their range. A backward includes what candle does beside the op: a gradient of ones, and one sum.

use candle_core::{Device, Result, Tensor, Var};
use kestrel_kernels::{Conv2dConfig, conv2d};
use std::time::{Duration, Instant};

const BATCH: usize = 128;
const RUNS: usize = 7;

fn main() -> Result<()> {
    println!(
        "batch {BATCH}, {} threads; median (least to most) GFLOP/s",
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
        let config = Conv2dConfig {
            padding: kernel / 2,
            ..Conv2dConfig::default()
        };
        let x = Tensor::randn(0f32, 1f32, (BATCH, input, size, size), &Device::Cpu)?;
        let weight = Tensor::randn(0f32, 0.1f32, (output, input, kernel, kernel), &Device::Cpu)?;
        let gflop = 2e-9 * (BATCH * input * output * size * size * kernel * kernel) as f64;
        let (x_var, weight_var) = (Var::from_tensor(&x)?, Var::from_tensor(&weight)?);
        let forward = measure(|| {
            let start = Instant::now();
            conv2d(&x, &weight, None, &config)?;
            Ok(start.elapsed())
        })?;
        let backward = |x: &Tensor, weight: &Tensor| {
            measure(|| {
                let y = conv2d(x, weight, None, &config)?;
                let start = Instant::now();
                y.backward()?;
                Ok(start.elapsed())
            })
        };
        let (backward_data, backward_weight) = (backward(&x_var, &weight)?, backward(&x, &weight_var)?);
        println!("{input:>3} -> {output:>3} @ {size:>2}, {kernel}x{kernel}:");
        for (pass, times) in [
            ("forward", forward),
            ("backward-data", backward_data),
            ("backward-weight", backward_weight),
        ] {
            let rate = |i: usize| gflop / times[i];
            println!(
                "    {pass:<16}{:6.1} ({:.1} to {:.1})  {:6.1} ms",
                rate(RUNS / 2),
                rate(RUNS - 1),
                rate(0),
                1e3 * times[RUNS / 2]
            );
        }
    }
    Ok(())
}

/// Seconds of each run, sorted, after one that is not counted.
fn measure(run: impl Fn() -> Result<Duration>) -> Result<Vec<f64>> {
    run()?;
    let mut times = (0..RUNS)
        .map(|_| Ok(run()?.as_secs_f64()))
        .collect::<Result<Vec<_>>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times)
}
