//! The commands, one a file.

pub(crate) mod bench;
mod class_lines;
pub(crate) mod completions;
pub(crate) mod data;
pub(crate) mod doctor;
pub(crate) mod evaluate;
mod evaluation_table;
pub(crate) mod export;
mod image_size;
mod listeners;
pub(crate) mod model;
mod named_images;
pub(crate) mod predict;
pub(crate) mod predictions;
pub(crate) mod report;
mod scoring;
pub(crate) mod serve;
mod stages;
pub(crate) mod train;
pub(crate) mod watch;
