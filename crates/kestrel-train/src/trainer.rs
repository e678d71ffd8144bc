//! A run: a model, what moves it, and how far it has come. Its loop is in `fit`, one step of it in `step`.

mod fit;
mod pending;
mod step;

use std::sync::Mutex;

use kestrel_kernels::autocast::Precision;
use kestrel_models::{Model, StateDict};

use crate::grad_clip::GradClip;
use crate::grad_scaler::GradScaler;
use crate::loss::{CrossEntropyLoss, Loss};
use crate::lr_scheduler::{Event, LrScheduler};
use crate::optim::Optimizer;
use crate::weight_average::WeightAverage;
use crate::{Progress, Recorder, Result};

pub use fit::TrainedEpoch;
pub(crate) use step::{Pass, told_of_memory};

/// The options of the loop itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainerConfig {
    /// Epochs in all; a resumed run does those that are left.
    pub epochs: usize,
    /// Batches between two lines of the log; 0 for none.
    pub log_every: usize,
    /// The run's seed.
    pub seed: u64,
}

/// A run: a model, what moves it, and how far it has come.
pub struct Trainer {
    model: Box<dyn Model>,
    optimizer: Box<dyn Optimizer>,
    scheduler: Option<Box<dyn LrScheduler>>,
    loss: Box<dyn Loss>,
    grad_clip: GradClip,
    accumulation: usize,
    precision: Precision,
    grad_scaler: Option<GradScaler>,
    /// Whether numbers are read later than in their step; none for where that saves waiting.
    deferred_reads: Option<bool>,
    average: Option<WeightAverage>,
    /// Locked by whoever makes a pass, for passes only borrow the run.
    recorder: Mutex<Recorder>,
    config: TrainerConfig,
    progress: Progress,
}

impl Trainer {
    /// A run at its start, with plain cross-entropy for a loss; the scheduler sets the first learning rates.
    pub fn new(
        model: Box<dyn Model>,
        mut optimizer: Box<dyn Optimizer>,
        mut scheduler: Option<Box<dyn LrScheduler>>,
        config: TrainerConfig,
    ) -> Self {
        if let Some(scheduler) = &mut scheduler {
            let mut lrs = optimizer.lrs();
            scheduler.start(&mut lrs);
            optimizer.set_lrs(&lrs);
        }
        Self {
            model,
            optimizer,
            scheduler,
            loss: Box::new(CrossEntropyLoss::default()),
            grad_clip: GradClip::default(),
            accumulation: 1,
            precision: Precision::F32,
            grad_scaler: None,
            deferred_reads: None,
            average: None,
            recorder: Mutex::default(),
            config,
            progress: Progress::default(),
        }
    }

    /// Trains on another loss. Validation stays plain cross-entropy, so that runs can be compared.
    #[must_use]
    pub fn with_loss(mut self, loss: Box<dyn Loss>) -> Self {
        self.loss = loss;
        self.recorder = Mutex::default();
        self
    }

    /// Clips gradients before each step.
    #[must_use]
    pub fn with_grad_clip(mut self, grad_clip: GradClip) -> Self {
        self.grad_clip = grad_clip;
        self
    }

    /// Makes a step of the optimiser every `batches` batches (at least 1), on their mean gradient: to rounding that of one
    /// batch of all their images. An epoch's last step may have fewer.
    #[must_use]
    pub fn with_accumulation(mut self, batches: usize) -> Self {
        self.accumulation = batches.max(1);
        self
    }

    /// Runs the model and the loss under [`autocast`](kestrel_kernels::autocast::autocast), in training and in validation.
    /// Weights, their average and the optimiser's state stay `f32`. In `f16` the loss is scaled as PyTorch's defaults say.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self.grad_scaler = (precision == Precision::F16).then(GradScaler::default);
        self
    }

    /// Scales the loss for its gradients; a step whose gradients are not finite is skipped, and not an error, while a smaller
    /// scale may mend it. A loss that is not finite is an error still: batch norm's statistics have seen what it came from.
    #[must_use]
    pub fn with_grad_scaler(mut self, grad_scaler: GradScaler) -> Self {
        self.grad_scaler = Some(grad_scaler);
        self
    }

    /// Whether losses and norms are read from the device some steps after their own, so that the host never waits for the step
    /// that it has just begun; by default on every device but the CPU. Weights and logs are the same. A step of numbers that
    /// are none moves nothing, nor does any step after it, but the run ends some steps later. Where the loss is scaled, each step is
    /// waited for: the next scale depends on it.
    #[must_use]
    pub fn with_deferred_reads(mut self, deferred: bool) -> Self {
        self.deferred_reads = Some(deferred);
        self
    }

    /// Averages the weights; the average is what is validated, and saved as the best weights.
    #[must_use]
    pub fn with_average(mut self, average: WeightAverage) -> Self {
        self.average = Some(average);
        self
    }

    /// Sets the options of the loop.
    #[must_use]
    pub fn with_config(mut self, config: TrainerConfig) -> Self {
        self.config = config;
        self
    }

    /// Goes on from where another trainer of the same model stopped, with an optimiser and a scheduler of its own.
    #[must_use]
    pub fn with_progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// The model.
    pub fn model(&self) -> &dyn Model {
        self.model.as_ref()
    }

    /// The optimiser.
    pub fn optimizer(&self) -> &dyn Optimizer {
        self.optimizer.as_ref()
    }

    /// The scheduler, if any.
    pub fn scheduler(&self) -> Option<&dyn LrScheduler> {
        self.scheduler.as_deref()
    }

    pub(crate) fn grad_clip(&self) -> GradClip {
        self.grad_clip
    }

    /// The precision of the model and the loss.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// What scales the loss, if it is scaled.
    pub fn grad_scaler(&self) -> Option<&GradScaler> {
        self.grad_scaler.as_ref()
    }

    /// The average of the weights, if one is taken.
    pub fn average(&self) -> Option<&WeightAverage> {
        self.average.as_ref()
    }

    /// A copy of the weights that validation measures: the average once there is one, else the model's.
    ///
    /// # Errors
    /// Where a device cannot copy.
    pub fn validated_weights(&self) -> Result<StateDict> {
        match self.average.as_ref().and_then(WeightAverage::weights) {
            // A step moves the average in place.
            Some(average) => average.iter().map(|(name, t)| Ok((name.clone(), t.copy()?))).collect(),
            None => Ok(self.model.params().state_dict()?),
        }
    }

    /// How far the run has come.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The options.
    pub fn config(&self) -> TrainerConfig {
        self.config
    }

    /// What a checkpoint sets; see [`crate::checkpoint::Checkpoint::restore`].
    pub(crate) fn restore_parts(&mut self) -> (&dyn Model, &mut dyn Optimizer, Option<&mut Box<dyn LrScheduler>>) {
        (self.model.as_ref(), self.optimizer.as_mut(), self.scheduler.as_mut())
    }

    pub(crate) fn grad_scaler_mut(&mut self) -> Option<&mut GradScaler> {
        self.grad_scaler.as_mut()
    }

    pub(crate) fn average_mut(&mut self) -> Option<&mut WeightAverage> {
        self.average.as_mut()
    }

    pub(crate) fn model_and_optimizer(&mut self) -> (&dyn Model, &mut dyn Optimizer) {
        (self.model.as_ref(), self.optimizer.as_mut())
    }

    pub(crate) fn set_progress(&mut self, progress: Progress) {
        self.progress = progress;
    }

    /// Tells the scheduler of an event.
    fn schedule(&mut self, event: Event) {
        let Some(scheduler) = &mut self.scheduler else {
            return;
        };
        let before = self.optimizer.lrs();
        let mut lrs = before.clone();
        scheduler.step(event, &mut lrs);
        if lrs == before {
            return;
        }
        if let (Event::Epoch { .. }, [from, ..], [to, ..]) = (event, &before[..], &lrs[..]) {
            tracing::info!(from, to, "Learning rate {from:.3e} -> {to:.3e}");
        }
        self.optimizer.set_lrs(&lrs);
    }
}
