//! `kestrel predict`.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use indicatif::MultiProgress;
use kestrel_data::datasets::ImageList;
use kestrel_data::loader::{DataLoader, LoaderConfig};
use kestrel_data::{BadSamplePolicy, Dataset, OnBadSample};
use kestrel_kernels::autocast::autocast;
use kestrel_train::Predictor;
use serde::Serialize;

use super::class_lines::{ClassLine, class_lines};
use super::named_images::named_images;
use crate::cli::{PredictArgs, PredictFormat};
use crate::{device, progress};

/// Batches made ready ahead of the network.
const PREFETCH: usize = 4;

/// Runs the command.
pub(crate) fn run(args: &PredictArgs, bars: &MultiProgress) -> Result<()> {
    device::set_threads(args.threads)?;
    let device = args.device.open()?;
    device::set_precision(args.precision, &device)?;
    let predictor =
        Predictor::load(&args.weights, &device).with_context(|| format!("loading {}", args.weights.display()))?;
    let list = Arc::new(named_images(&args.paths, &mut io::stdin().lock())?);
    if list.is_empty() {
        bail!("no image is named; give files, folders, patterns, or - for standard input");
    }
    let config = LoaderConfig {
        batch_size: args.batch_size as usize,
        prefetch: PREFETCH,
        bad_samples: BadSamplePolicy {
            // Each image was named by itself: one that is damaged says nothing of the others.
            on_bad_sample: OnBadSample::Skip,
            max_bad_fraction: 1.0,
        },
        ..LoaderConfig::default()
    };
    let transforms = predictor
        .transforms()
        .with_context(|| format!("in {}", args.weights.display()))?;
    let loader = match DataLoader::new(Arc::clone(&list) as Arc<dyn Dataset>, transforms, config) {
        // Every one is bad, and has been named.
        Err(kestrel_data::Error::EmptySplit { .. }) => {
            let mut none = Predictions::new(args, &predictor, &list);
            none.begin()?;
            none.end()?;
            return failed(list.len(), list.len());
        }
        loader => loader?.to_device(&device),
    };
    let mut out = Predictions::new(args, &predictor, &list);
    // Lines on a terminal say enough of how far it has come.
    let hidden = io::stdout().is_terminal() || loader.num_batches() < 2;
    let bar = (!hidden).then(|| progress::steps(bars, "Prediction", loader.num_batches() as u64));
    let mut done = 0;
    out.begin()?;
    for batch in loader.epoch(0) {
        let batch = batch?;
        let probabilities = autocast(args.precision.into(), || predictor.probabilities(&batch.images))?;
        for (row, index) in probabilities.iter().zip(&batch.indices) {
            out.image(*index, row)?;
            done += 1;
        }
        if let Some(bar) = &bar {
            bar.inc(1);
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
        bars.remove(&bar);
    }
    out.end()?;
    match list.len() - done {
        0 => Ok(()),
        bad => failed(bad, list.len()),
    }
}

fn failed(bad: usize, all: usize) -> Result<()> {
    bail!("{bad} of {all} images could not be predicted; they are named above")
}

/// Writes predictions to standard output, as they come.
struct Predictions<'a> {
    args: &'a PredictArgs,
    predictor: &'a Predictor,
    list: &'a ImageList,
    out: io::BufWriter<io::StdoutLock<'static>>,
    /// Letters of the longest path and of the longest class.
    widths: (usize, usize),
    written: usize,
}

#[derive(Serialize)]
struct ImageLine<'a> {
    path: String,
    predictions: Vec<ClassLine<'a>>,
}

impl<'a> Predictions<'a> {
    fn new(args: &'a PredictArgs, predictor: &'a Predictor, list: &'a ImageList) -> Self {
        let letters = |text: &str| text.chars().count();
        let paths = (0..list.len()).map(|i| letters(&list.path(i).display().to_string()));
        let classes = predictor.info().classes.iter().map(|name| letters(name));
        Self {
            args,
            predictor,
            list,
            out: io::BufWriter::new(io::stdout().lock()),
            widths: (paths.max().unwrap_or(0), classes.max().unwrap_or(0)),
            written: 0,
        }
    }

    fn begin(&mut self) -> Result<()> {
        match self.args.format {
            PredictFormat::Text => {}
            PredictFormat::Json => write!(self.out, "[")?,
            PredictFormat::Csv => writeln!(self.out, "path,rank,class,probability")?,
        }
        Ok(())
    }

    fn image(&mut self, index: usize, row: &[f32]) -> Result<()> {
        let path = self.list.path(index).display().to_string();
        let lines = class_lines(&self.predictor.info().classes, row, self.args.top_k as usize);
        match self.args.format {
            PredictFormat::Text => {
                let (path_width, class_width) = self.widths;
                write!(self.out, "{path:path_width$}")?;
                for ClassLine { class, probability } in lines {
                    write!(self.out, "  {class:class_width$} {:6.2}%", 100.0 * probability)?;
                }
                writeln!(self.out)?;
                // A person who waits at a terminal sees each at once.
                if io::stdout().is_terminal() {
                    self.out.flush()?;
                }
            }
            PredictFormat::Json => {
                let line = ImageLine {
                    path,
                    predictions: lines,
                };
                self.out.write_all(if self.written == 0 { b"\n" } else { b",\n" })?;
                serde_json::to_writer(&mut self.out, &line).map_err(io::Error::from)?;
            }
            PredictFormat::Csv => {
                let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
                for (rank, line) in (1..).zip(lines) {
                    csv.serialize((&path, rank, line.class, line.probability))?;
                }
                self.out.write_all(&csv.into_inner()?)?;
            }
        }
        self.written += 1;
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if self.args.format == PredictFormat::Json {
            self.out.write_all(if self.written == 0 { b"]\n" } else { b"\n]\n" })?;
        }
        Ok(self.out.flush()?)
    }
}
