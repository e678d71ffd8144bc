//! `kestrel bench`: speed in images a second, or a time, a line a case and variant.

mod cnn;
mod engine;
mod load_cifar;
mod load_folder;
mod resnet;
mod resnet_head_cached;
mod steps;
mod whitened_cnn;

use std::io::{self, Write};
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::Device;
use kestrel_kernels::autocast::Precision;

use crate::cli::{BenchArgs, BenchCase};
use crate::config::PrecisionName;
use crate::device;

/// Runs the command.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    device::set_threads(args.threads)?;
    let device = args.device.open()?;
    device::set_precision(args.precision, &device)?;
    device::in_pool(&device, || measure(args, &device))
}

/// Measures the cases, one after the other.
fn measure(args: &BenchArgs, device: &Device) -> Result<()> {
    let all = [
        BenchCase::CnnTrain,
        BenchCase::CnnEval,
        BenchCase::WhitenedCnnTrain,
        BenchCase::ResnetHead,
        BenchCase::ResnetHeadCached,
        BenchCase::ResnetFull,
        BenchCase::LoadCifar,
        BenchCase::EngineOverhead,
        BenchCase::CheckpointStall,
    ];
    // Without photographs, there is nothing to load.
    let all = [&all[..], &[BenchCase::LoadFolder][..usize::from(args.folder.is_some())]].concat();
    let cases = if args.cases.is_empty() { &all } else { &args.cases };
    tracing::info!("Device: {}", device::describe(device));
    let precision = match args.precision {
        PrecisionName::Tf32 => "tf32",
        other => Precision::from(other).name(),
    };
    for case in cases {
        let (name, variant, rates) = match case {
            BenchCase::CnnTrain => ("cnn-train", precision, cnn::train(args, device)?),
            BenchCase::CnnEval => ("cnn-eval", "f32", cnn::eval(args.repeats, device)?),
            BenchCase::WhitenedCnnTrain => ("whitened-cnn-train", "f32", whitened_cnn::train(args.repeats, device)?),
            BenchCase::ResnetHead => ("resnet-head", "f32", resnet::head(args.repeats, device)?),
            BenchCase::ResnetHeadCached => {
                let rates = resnet_head_cached::train(args.repeats, device)?;
                ("resnet-head-cached", "f32", rates)
            }
            BenchCase::ResnetFull => ("resnet-full", precision, resnet::full(args, device)?),
            BenchCase::LoadCifar => ("load-cifar", "prefetch", load_cifar::load(args.repeats, device)?),
            BenchCase::LoadFolder => {
                let folder = args.folder.as_deref();
                let folder = folder.context("load-folder needs photographs: name their folder with --folder DIR")?;
                (
                    "load-folder",
                    "prefetch",
                    load_folder::load(folder, args.repeats, device)?,
                )
            }
            BenchCase::EngineOverhead => {
                let [bare, trainer] = engine::overhead(args.repeats, device)?;
                // The median over pairs that were measured one after the other.
                let added = bare
                    .iter()
                    .zip(&trainer)
                    .map(|(bare, trainer)| 100.0 * (bare / trainer - 1.0));
                say("engine-overhead", "trainer adds", added.collect(), "%")?;
                say("engine-overhead", "trainer", trainer, "img/s")?;
                ("engine-overhead", "bare step", bare)
            }
            BenchCase::CheckpointStall => {
                let [stall, whole] = engine::stall(args.repeats, device)?;
                say("checkpoint-stall", "loop waits", stall, "ms")?;
                say("checkpoint-stall", "on the disk", whole, "ms")?;
                continue;
            }
        };
        say(name, variant, rates, "img/s")?;
    }
    Ok(())
}

/// Images a second of each repeat, after one that is not counted.
fn clock(images: usize, repeats: u64, mut step: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    step()?;
    (0..repeats)
        .map(|_| {
            let started = Instant::now();
            step()?;
            Ok(images as f64 / started.elapsed().as_secs_f64())
        })
        .collect()
}

fn say(case: &str, variant: &str, mut values: Vec<f64>, unit: &str) -> Result<()> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    let median = (values[(n - 1) / 2] + values[n / 2]) / 2.0;
    let (least, most) = (values[0], values[n - 1]);
    let line = format!("{case:18} {variant:10} {median:9.2} {unit}  (median of {n}, {least:.2} to {most:.2})");
    Ok(writeln!(io::stdout().lock(), "{line}")?)
}
