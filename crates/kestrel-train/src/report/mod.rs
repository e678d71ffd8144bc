//! Pictures of what a model does, and the report of a run.
//!
//! A figure is drawn once, on a `Surface`: an SVG in the page or a PNG. The report is made of what lies in a run's folder alone
//! (`metrics.jsonl`, `throughput.jsonl`, `config.toml`, `environment.json`, `data.json`, `evaluation.json`, `gallery.json`), so
//! that it can be made again at any time, also while the run goes on.

mod axis;
mod canvas;
mod comparison_page;
mod data_record;
mod escape;
mod evaluation_record;
mod figures;
mod gallery;
mod lr_plot;
mod page;
mod prediction_grid;
mod record_file;
mod report_file;
mod run_figures;
mod run_log;
mod run_page;
mod run_record;
mod surface;
mod svg;
mod thumbnail;

pub use data_record::{Augmentation, DataRecord, SplitRecord};
pub use evaluation_record::{ClassRecord, EVALUATION_FILE, EvaluationRecord};
pub use gallery::{Gallery, GalleryImage};
pub use lr_plot::save_lr_plot;
pub use page::STYLE;
pub use prediction_grid::{Prediction, denormalize, save_prediction_grid};
pub use report_file::{FIGURES_FOLDER, REPORT_FILE, report_page, write_comparison, write_report};
pub use run_log::{EpochLine, RunLine, RunLog, StepLine, ThroughputLine};
pub use thumbnail::Thumbnail;
