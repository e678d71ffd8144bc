//! Evaluating weights on a split, and all that follows: the table, the run's files, its report.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::Device;
use indicatif::MultiProgress;
use kestrel_kernels::autocast::{Precision, autocast};
use kestrel_models::Model;
use kestrel_models::weights::ModelInfo;
use kestrel_train::report::{EvaluationRecord, Gallery, write_report};
use kestrel_train::{Evaluation, Tta, evaluate_with};

use super::evaluation_table;
use crate::cli::ReportFormat;
use crate::data::{self, EvalImages};
use crate::progress;

/// What is evaluated on what.
pub(crate) struct Scoring<'a> {
    pub(crate) model: &'a dyn Model,
    /// What the weight file says, with its temperature.
    pub(crate) info: &'a ModelInfo,
    pub(crate) images: &'a EvalImages,
    /// The images' name, as `--split` has it: `test`.
    pub(crate) split: &'a str,
    pub(crate) batch_size: usize,
    pub(crate) tta: Tta,
    pub(crate) precision: Precision,
    /// Which images are shown.
    pub(crate) seed: u64,
    pub(crate) device: &'a Device,
    pub(crate) bars: &'a MultiProgress,
}

impl Scoring<'_> {
    /// Evaluates, prints what was found to standard output, and gives it for [`report`](Self::report).
    pub(crate) fn run(&self, format: ReportFormat) -> Result<(Evaluation, EvaluationRecord)> {
        let evaluation = self.evaluate()?;
        let found = EvaluationRecord::new(&evaluation, self.info, self.split);
        let mut text = Vec::new();
        match format {
            ReportFormat::Text => {
                // Those that were damaged too, whether they were left out when the data set was opened or since.
                let images = self.images.dataset.len() + self.images.dataset.left_out();
                evaluation_table::print(&found, images, &mut text)?;
            }
            ReportFormat::Json => {
                serde_json::to_writer_pretty(&mut text, &found)?;
                writeln!(text)?;
            }
        }
        let mut out = io::stdout().lock();
        match out.write_all(&text).and_then(|()| out.flush()) {
            // There are files to write, whoever has stopped reading.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written?,
        }
        Ok((evaluation, found))
    }

    /// Evaluates with a bar on the terminal.
    fn evaluate(&self) -> Result<Evaluation> {
        let loader = data::eval_loader(self.images.clone(), self.batch_size, 2)?.to_device(self.device);
        let bar = progress::steps(self.bars, "Evaluation", loader.num_batches() as u64);
        let mut on_batch = |done, _| {
            bar.set_position(done as u64);
            Ok(())
        };
        let evaluation = autocast(self.precision, || {
            evaluate_with(self.model, &loader, self.tta, &mut on_batch)
        });
        bar.finish_and_clear();
        self.bars.remove(&bar);
        Ok(evaluation?)
    }

    /// Writes what was found into a run's folder, and the folder's report.
    pub(crate) fn report(&self, (evaluation, found): &(Evaluation, EvaluationRecord), folder: &Path) -> Result<()> {
        found.save(folder)?;
        let EvalImages {
            dataset, transforms, ..
        } = self.images;
        let gallery = Gallery::new(evaluation, self.info, dataset, transforms, self.seed);
        gallery.context("the images of the report")?.save(folder)?;
        let page = write_report(folder)?;
        tracing::info!("Report: {}", page.display());
        Ok(())
    }
}
