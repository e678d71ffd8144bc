//! What a run writes about itself: `metrics.jsonl`, `metrics.csv`, `throughput.jsonl` and TensorBoard's event files.
//!
//! `metrics.jsonl` and `metrics.csv` are functions of the run's options, data and seed alone, and those of a resumed run are
//! those of the run that never stopped, byte for byte: times are in `throughput.jsonl`. Each writer is a
//! [`Callback`](crate::Callback), and stands before the checkpointer.

mod json_lines;
mod metrics_csv;
mod metrics_log;
mod tensorboard;
mod throughput;

pub use metrics_csv::MetricsCsv;
pub use metrics_log::{MetricsLog, RunHeader};
pub use tensorboard::TensorBoard;
pub use throughput::ThroughputLog;
