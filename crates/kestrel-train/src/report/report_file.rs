//! Writing a run's report: the page, and its figures as pictures.

use std::path::{Path, PathBuf};

use super::canvas::Canvas;
use super::comparison_page::comparison_page;
use super::evaluation_record::EvaluationRecord;
use super::gallery::GalleryImage;
use super::prediction_grid::{Prediction, save_prediction_grid};
use super::run_figures;
use super::run_page::run_page;
use super::run_record::RunRecord;
use crate::checkpoint::write_atomic;
use crate::{Error, Result};

/// The page, in a run's folder.
pub const REPORT_FILE: &str = "report.html";
/// The folder of its figures as PNG files, in a run's folder.
pub const FIGURES_FOLDER: &str = "figures";

/// Writes the report of a run's folder from what is in it: `report.html` and `figures/*.png`. The page's path.
///
/// # Errors
/// [`Error::NoRun`], [`Error::Read`], [`Error::InvalidRecord`], [`Error::Write`].
pub fn write_report(folder: &Path) -> Result<PathBuf> {
    let run = RunRecord::load(folder)?;
    let figures = folder.join(FIGURES_FOLDER);
    std::fs::create_dir_all(&figures).map_err(|source| Error::Write {
        path: figures.clone(),
        source,
    })?;
    for figure in run_figures::all(&run) {
        let path = figures.join(format!("{}.png", figure.name()));
        Canvas::of(figure.as_ref()).save(&path)?;
    }
    let parts = [
        ("images_right", &run.gallery.right),
        ("images_wrong", &run.gallery.wrong),
        ("images_confident_wrong", &run.gallery.confident_wrong),
    ];
    let classes: Vec<&str> = run.evaluation.iter().flat_map(EvaluationRecord::classes).collect();
    for (name, images) in parts {
        if !images.is_empty() {
            let tiles = images.iter().map(GalleryImage::prediction);
            let tiles: Vec<Prediction> = tiles.collect::<Result<_>>()?;
            save_prediction_grid(&tiles, &classes, &figures.join(format!("{name}.png")))?;
        }
    }
    if !run.data.augmentations.is_empty() {
        run.data.picture()?.save(&figures.join("augmentations.png"))?;
    }
    let page = folder.join(REPORT_FILE);
    write_atomic(&page, run_page(&run).as_bytes())?;
    Ok(page)
}

/// The page of a run's folder, as it is now.
///
/// # Errors
/// [`Error::NoRun`], [`Error::Read`], [`Error::InvalidRecord`].
pub fn report_page(folder: &Path) -> Result<String> {
    Ok(run_page(&RunRecord::load(folder)?))
}

/// Writes a page that compares several runs.
///
/// # Errors
/// Those of [`write_report`].
pub fn write_comparison(folders: &[PathBuf], page: &Path) -> Result<()> {
    let runs: Vec<RunRecord> = folders
        .iter()
        .map(|folder| RunRecord::load(folder))
        .collect::<Result<_>>()?;
    write_atomic(page, comparison_page(&runs).as_bytes())
}
