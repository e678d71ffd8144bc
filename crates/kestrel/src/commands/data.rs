//! `kestrel data inspect`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::{Result, bail};
use indicatif::MultiProgress;
use kestrel_data::inspect::{Duplicate, Finding, LeftOut, Report, SplitReport, inspect};

use crate::cli::{DataArgs, DataCommand, InspectArgs, ReportFormat};
use crate::progress;

/// Sizes that are listed of a split; the others are counted.
const SIZES: usize = 8;
/// Files that are no samples and are listed for each reason; the others are counted.
const SKIPPED: usize = 20;

/// Runs the command.
pub(crate) fn run(args: &DataArgs, bars: &MultiProgress) -> Result<()> {
    let DataCommand::Inspect(args) = &args.command;
    let report = look(args, bars)?;
    let mut out = io::stdout().lock();
    match args.format {
        ReportFormat::Text => print(&report, &mut out)?,
        ReportFormat::Json => {
            serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    out.flush()?;
    if !report.broken.is_empty() {
        let images: usize = report.splits.iter().map(|split| split.samples).sum();
        bail!(
            "{} of {images} images in {} are broken; mend or remove them, or train with --on-bad-sample skip",
            report.broken.len(),
            report.path
        );
    }
    Ok(())
}

fn look(args: &InspectArgs, bars: &MultiProgress) -> Result<Report> {
    let bar = progress::steps(bars, "Inspection", 0);
    let report = inspect(&args.path, &|done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    bars.remove(&bar);
    Ok(report?)
}

fn print(report: &Report, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", report.path)?;
    print_classes(&report.splits, out)?;
    for split in &report.splits {
        print_split(split, out)?;
    }
    print_findings("Broken", &report.broken, out)?;
    print_duplicates(&report.duplicates, out)?;
    print_findings("Suspicious", &report.suspicious, out)?;
    print_skipped(&report.skipped, out)
}

/// A line a class, a column a split.
fn print_classes(splits: &[SplitReport], out: &mut impl Write) -> io::Result<()> {
    let Some(first) = splits.first() else { return Ok(()) };
    let names = first.classes.iter().map(|(name, _)| name.chars().count());
    let width = names.chain(["class".len()]).max().unwrap_or_default();
    write!(out, "\n{:width$}", "class")?;
    for split in splits {
        write!(out, "  {:>8}", split.name)?;
    }
    for (label, (name, _)) in first.classes.iter().enumerate() {
        write!(out, "\n{name:width$}")?;
        for split in splits {
            write!(out, "  {:>8}", split.classes[label].1)?;
        }
    }
    write!(out, "\n{:width$}", "all")?;
    for split in splits {
        write!(out, "  {:>8}", split.samples)?;
    }
    writeln!(out)
}

fn print_split(split: &SplitReport, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "\n{}: {} images, {:.1} MB",
        split.name,
        split.samples,
        split.bytes as f64 / 1e6
    )?;
    if !split.formats.is_empty() {
        let formats: Vec<String> = split
            .formats
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        writeln!(out, "  formats  {}", formats.join(", "))?;
    }
    let listed = split.sizes.iter().take(SIZES);
    let mut sizes: Vec<String> = listed
        .map(|(width, height, count)| format!("{width}x{height} {count}"))
        .collect();
    if split.sizes.len() > SIZES {
        sizes.push(format!("and {} other sizes", split.sizes.len() - SIZES));
    }
    writeln!(out, "  sizes    {}", sizes.join(", "))?;
    for (name, values) in [("mean", split.mean), ("std", split.std)] {
        let [red, green, blue] = values;
        writeln!(out, "  {name:8} {red:.4} {green:.4} {blue:.4}")?;
    }
    Ok(())
}

fn print_findings(title: &str, findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\n{title}: {}", findings.len())?;
    for finding in findings {
        // An error names the file itself.
        if finding.finding.contains(&finding.sample) {
            writeln!(out, "  {}: {}", finding.split, finding.finding)?;
        } else {
            writeln!(out, "  {}: {}: {}", finding.split, finding.sample, finding.finding)?;
        }
    }
    Ok(())
}

fn print_duplicates(groups: &[Duplicate], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\nDuplicates: {} groups", groups.len())?;
    for group in groups {
        let what = if group.same_file { "same file" } else { "same pixels" };
        let splits = if group.across_splits { ", across splits" } else { "" };
        let classes = if group.across_classes { ", across classes" } else { "" };
        writeln!(out, "  {what}{splits}{classes}")?;
        for (split, class, sample) in &group.samples {
            writeln!(out, "    {split}, {class}: {sample}")?;
        }
    }
    Ok(())
}

/// What was left out, reason by reason: of a picture's companions there may be as many as pictures.
fn print_skipped(skipped: &[LeftOut], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\nLeft out: {}", skipped.len())?;
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in skipped {
        by_reason.entry(one.reason).or_default().push(&one.path);
    }
    for (reason, paths) in by_reason {
        for path in paths.iter().take(SKIPPED) {
            writeln!(out, "  {path} {reason}")?;
        }
        if paths.len() > SKIPPED {
            writeln!(
                out,
                "  and {} others; --format json lists them all",
                paths.len() - SKIPPED
            )?;
        }
    }
    Ok(())
}
