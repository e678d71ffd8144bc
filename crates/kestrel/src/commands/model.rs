//! `kestrel model`.

use std::io::{self, Write};

use anyhow::{Context, Result};
use candle_core::{DType, Device};
use kestrel_models::ModelConfig;
use kestrel_models::graph::Summary;
use kestrel_train::checkpoint::Weights;

use crate::cli::{ModelArgs, ModelCommand, ReportFormat, SummaryArgs};
use crate::config::{ModelName, StemName, TrainConfig, TrainOptions};
use crate::exit;

/// Side of ImageNet's images, and how many classes it has.
const IMAGENET: (usize, usize) = (224, 1000);
/// Side of CIFAR-10's images, and how many classes it has.
const CIFAR: (usize, usize) = (32, 10);

/// Runs the command.
pub(crate) fn run(args: &ModelArgs) -> Result<()> {
    let ModelCommand::Summary(args) = &args.command;
    let config = match &args.weights {
        Some(path) => Weights::load(path)?.info.model,
        None => named(args).map_err(exit::usage)?,
    };
    let side = args.image_size.map_or(config.image_size(), |side| side as usize);
    let model = config.build(0, DType::F32, &Device::Cpu)?;
    let summary = Summary::of(model.as_ref(), side, side).with_context(|| {
        format!(
            "{} cannot take images of {side} pixels; choose others with --image-size",
            config.name()
        )
    });
    let summary = summary.map_err(exit::usage)?;
    match args.format {
        ReportFormat::Text => print(&config, side, &summary),
        ReportFormat::Json => {
            let mut out = io::stdout().lock();
            Ok(writeln!(out, "{}", serde_json::to_string_pretty(&summary)?)?)
        }
    }
}

/// The network of the options.
fn named(args: &SummaryArgs) -> Result<ModelConfig> {
    let model = args.model.unwrap_or(ModelName::Cnn);
    let small = model.depth().is_none() || args.stem == Some(StemName::Cifar);
    let side = args
        .image_size
        .map_or(if small { CIFAR.0 } else { IMAGENET.0 }, |side| side as usize);
    let classes = if side >= IMAGENET.0 { IMAGENET.1 } else { CIFAR.1 };
    let config = TrainConfig::from_layers(&[&TrainOptions {
        model: Some(model),
        stem: args.stem,
        width: args.width.map(|width| width as usize),
        ..TrainOptions::default()
    }])?;
    let network = config.network(args.num_classes.map_or(classes, |classes| classes as usize), side);
    network.check()?;
    Ok(network)
}

fn print(config: &ModelConfig, side: usize, summary: &Summary) -> Result<()> {
    let heads = ["layer", "type", "output", "parameters", "MACs"].map(str::to_owned);
    let rows = summary.layers.iter().map(|layer| {
        let shape: Vec<String> = layer.output.iter().map(ToString::to_string).collect();
        let number = |n: u64| if n == 0 { String::new() } else { grouped(n) };
        [
            layer.name.clone(),
            layer.kind.to_owned(),
            shape.join("x"),
            number(layer.parameters as u64),
            number(layer.macs),
        ]
    });
    let rows: Vec<[String; 5]> = std::iter::once(heads).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(width);
    let mut out = io::stdout().lock();
    for [name, kind, shape, parameters, macs] in &rows {
        let line = format!("{name:a$}  {kind:b$}  {shape:>c$}  {parameters:>d$}  {macs:>e$}");
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(
        out,
        "\n{}, images of {side}x{side}, {} classes: {} parameters ({:.1} MB in f32), {:.3} GMACs an image",
        config.name(),
        config.num_classes(),
        grouped(summary.parameters as u64),
        4e-6 * summary.parameters as f64,
        1e-9 * summary.macs as f64
    )?;
    Ok(())
}

/// A number with a comma before every three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        for (number, want) in [(0, "0"), (999, "999"), (1000, "1,000"), (11_689_512, "11,689,512")] {
            assert_eq!(grouped(number), want);
        }
    }
}
