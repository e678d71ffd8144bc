//! The training engine: optimisers, schedulers, the loop, metrics, checkpoints, evaluation, pictures.
//!
//! [`Trainer`] owns what changes during a run: the model's parameters, the optimiser, the scheduler and the
//! [`Progress`] made. It runs [`Trainer::train_one_epoch`] and [`evaluate`] in turn, and tells [`Callback`]s, which
//! draw progress, save files or stop the run. Nothing in this crate prints; it speaks by `tracing` events.
//!
//! ```
//! use std::sync::Arc;
//!
//! use candle_core::{DType, Device};
//! use kestrel_data::{Subset, datasets, loader::{DataLoader, LoaderConfig}, transforms::presets};
//! use kestrel_kernels::AdamConfig;
//! use kestrel_models::{CnnConfig, ModelConfig};
//! use kestrel_train::{Trainer, TrainerConfig, optim::Adam};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let images = datasets::sample::load()?;
//! // A few of them, so that this takes no time.
//! let few = Arc::new(Subset::new(images.train, (0..64).collect())?);
//! let shuffled = LoaderConfig { batch_size: 32, shuffle: true, ..LoaderConfig::default() };
//! let train = DataLoader::new(few, presets::cifar_train(32)?, shuffled)?;
//! let val = DataLoader::new(images.test, presets::cifar_eval()?, LoaderConfig::default())?;
//!
//! let network = ModelConfig::Cnn(CnnConfig { width: 8, ..CnnConfig::new(10) });
//! let model = network.build(0, DType::F32, &Device::Cpu)?;
//! let adam = Adam::new(model.params().trainable(), AdamConfig { lr: 1e-3, ..AdamConfig::default() })?;
//! let options = TrainerConfig { epochs: 1, log_every: 0, seed: 0 };
//! let mut trainer = Trainer::new(model, Box::new(adam), None, options);
//! trainer.fit(&train, &val, &mut [])?;
//! assert!(trainer.progress().best_accuracy.is_some());
//! # Ok(())
//! # }
//! ```
//!
//! Pictures of one's own, and a data set, network and callback of one's own, are in the examples `own_folder` and `own_network`. A
//! program that trains should have [`kestrel_kernels::memory::CachingAllocator`] as its global allocator: without it the system takes
//! a step's large buffers back and hands them out anew, page by page.

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
