//! Pictures of what a model does.

mod canvas;
mod lr_plot;
mod prediction_grid;

pub use lr_plot::save_lr_plot;
pub use prediction_grid::{Prediction, denormalize, save_prediction_grid};
