//! The figures of a report, one kind a file.

pub(super) mod class_bars;
pub(super) mod confusion;
pub(super) mod curves;
pub(super) mod reliability;
pub(super) mod time_split;
