//! The commands, one a file.

pub(crate) mod bench;
pub(crate) mod data;
pub(crate) mod evaluate;
pub(crate) mod export;
mod listeners;
pub(crate) mod predictions;
mod stages;
pub(crate) mod train;
