//! Pictures of what a model does.

mod canvas;
mod prediction_grid;

pub use prediction_grid::{Prediction, denormalize, save_prediction_grid};
