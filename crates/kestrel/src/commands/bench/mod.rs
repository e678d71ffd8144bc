//! `kestrel bench`: speed in images a second, one line a case.

mod cnn;
mod load_cifar;
mod load_folder;
mod resnet;
mod resnet_head_cached;
mod whitened_cnn;

use std::io::{self, Write};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::cli::{BenchArgs, BenchCase};
use crate::device;

/// Runs the command.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    device::set_threads(args.threads)?;
    let device = args.device.open()?;
    let all = [
        BenchCase::CnnTrain,
        BenchCase::CnnEval,
        BenchCase::WhitenedCnnTrain,
        BenchCase::ResnetHead,
        BenchCase::ResnetHeadCached,
        BenchCase::ResnetFull,
        BenchCase::LoadCifar,
    ];
    // Without photographs, there is nothing to load.
    let all = [&all[..], &[BenchCase::LoadFolder][..usize::from(args.folder.is_some())]].concat();
    let cases = if args.cases.is_empty() { &all } else { &args.cases };
    tracing::info!("Device: {}", device::describe(&device));
    for case in cases {
        let (name, variant, rates) = match case {
            BenchCase::CnnTrain => ("cnn-train", "f32", cnn::train(args.repeats, &device)?),
            BenchCase::CnnEval => ("cnn-eval", "f32", cnn::eval(args.repeats, &device)?),
            BenchCase::WhitenedCnnTrain => ("whitened-cnn-train", "f32", whitened_cnn::train(args.repeats, &device)?),
            BenchCase::ResnetHead => ("resnet-head", "f32", resnet::head(args.repeats, &device)?),
            BenchCase::ResnetHeadCached => {
                let rates = resnet_head_cached::train(args.repeats, &device)?;
                ("resnet-head-cached", "f32", rates)
            }
            BenchCase::ResnetFull => ("resnet-full", "f32", resnet::full(args.repeats, &device)?),
            BenchCase::LoadCifar => ("load-cifar", "prefetch", load_cifar::load(args.repeats, &device)?),
            BenchCase::LoadFolder => {
                let folder = args.folder.as_deref();
                let folder = folder.context("load-folder needs photographs: name their folder with --folder DIR")?;
                (
                    "load-folder",
                    "prefetch",
                    load_folder::load(folder, args.repeats, &device)?,
                )
            }
        };
        say(name, variant, rates)?;
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

fn say(case: &str, variant: &str, mut rates: Vec<f64>) -> Result<()> {
    rates.sort_by(f64::total_cmp);
    let n = rates.len();
    let median = (rates[(n - 1) / 2] + rates[n / 2]) / 2.0;
    let (least, most) = (rates[0], rates[n - 1]);
    let line = format!("{case:18} {variant:10} {median:9.2} img/s  (median of {n}, {least:.2} to {most:.2})");
    Ok(writeln!(io::stdout().lock(), "{line}")?)
}
