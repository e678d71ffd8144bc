//! The commands, one a file.

pub(crate) mod bench;
pub(crate) mod data;
pub(crate) mod evaluate;
pub(crate) mod predictions;
pub(crate) mod train;
