//! The training engine: optimisers, schedulers, the loop, metrics, checkpoints, evaluation, pictures.
//!
//! [`Trainer`] owns what changes during a run: the model's parameters, the optimiser, the scheduler and the
//! [`Progress`] made. It runs [`Trainer::train_one_epoch`] and [`evaluate`] in turn, and tells [`Callback`]s, which
//! draw progress, save files or stop the run. Nothing in this crate prints; it speaks by `tracing` events.

mod batch_source;
pub mod callback;
pub mod checkpoint;
pub mod early_stopping;
mod error;
mod evaluate;
pub mod feature_cache;
mod forward_backward;
mod freeze_after;
mod grad_accumulation;
mod grad_cam;
pub mod grad_clip;
mod grad_scaler;
pub mod loss;
pub mod lr_finder;
pub mod lr_scheduler;
pub mod metrics;
mod non_finite;
mod number;
pub mod optim;
mod picture;
pub mod predictor;
mod progress;
pub mod report;
pub mod run_log;
pub mod time_limit;
mod trainer;
pub mod tta;
pub mod weight_average;

pub use batch_source::{BatchSource, Batches};
pub use callback::{Callback, Control, EpochReport, StepReport};
pub use early_stopping::EarlyStopping;
pub use error::{Error, Result};
pub use evaluate::{Evaluation, evaluate, evaluate_with};
pub use forward_backward::{Gradients, Recorder, TrainPass};
pub use freeze_after::FreezeAfter;
pub use grad_cam::{GradCam, Heatmap};
pub use grad_clip::GradClip;
pub use grad_scaler::{GradScaler, GradScalerConfig};
pub use non_finite::{NonFinite, NonFiniteDump};
pub use picture::Picture;
pub use predictor::Predictor;
pub use progress::{Position, Progress};
pub use time_limit::TimeLimit;
pub use trainer::{TrainedEpoch, Trainer, TrainerConfig};
pub use tta::Tta;
pub use weight_average::{AverageKind, WeightAverage};
