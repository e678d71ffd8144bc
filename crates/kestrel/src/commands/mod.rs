//! The commands, one a file.

pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod data;
pub(crate) mod evaluate;
pub(crate) mod export;
pub(crate) mod model;
pub(crate) mod predictions;
mod stages;
pub(crate) mod train;
