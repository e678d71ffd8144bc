//! Passes recorded as a CUDA graph.

use std::time::Instant;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use kestrel_kernels::cuda::{Graph, copy_all};
use kestrel_models::Mode;

use super::key::{Followed, Key, Meeting};
use super::{Gradients, TrainPass};
use crate::Result;
use crate::loss::Targets;

/// Passes that are made, launch by launch, before one is timed: kernels are loaded and algorithms chosen in the first.
const WARM_UP: usize = 2;

/// The share of a pass's time that the host takes to launch it, above which it is recorded. Recorded memory is a graph's own,
/// so a pass whose work hides its launches is better not recorded.
const LAUNCHES_DOMINATE: f64 = 0.6;

/// Makes passes on a GPU, recorded as a CUDA graph after a few passes if their launches dominate, and replayed from
/// then on: to the bit what the launches give.
///
/// Only passes of which model and loss both say that they [can be recorded](kestrel_models::Model::can_be_recorded) are. A
/// recording is of one shape of batch and one set of trained parameters. Batches of another shape, as an epoch's last, are passed
/// launch by launch, until some have come running: then it begins anew, as it does with another set of parameters, after a layer
/// is frozen. What cannot be recorded, as a loss that reads a number back, never is. A recorder is for one loss.
#[derive(Default)]
pub struct Recorder {
    state: State,
    /// For whom the state is.
    followed: Followed,
}

#[derive(Default)]
enum State {
    WarmingUp(usize),
    Recorded(Box<Recorded>),
    /// Nothing has come yet, or it is not worth it, or not possible.
    #[default]
    ByLaunches,
}

/// A pass and the tensors that it reads and writes.
struct Recorded {
    graph: Graph,
    images: Tensor,
    targets: Tensor,
    loss: Tensor,
    logits: Tensor,
    grads: Vec<(Var, Tensor)>,
}

impl Recorder {
    /// [`TrainPass::forward_backward`]; the gradients are overwritten by the next call.
    ///
    /// # Errors
    /// Those of [`TrainPass::forward_backward`].
    pub fn forward_backward(&mut self, pass: TrainPass<'_>) -> Result<Gradients> {
        let by_launches = || pass.forward_backward();
        let TrainPass { images, targets, .. } = pass;
        let Mode::Train { seed, step } = pass.mode else {
            return by_launches();
        };
        if !images.device().is_cuda() || !pass.model.can_be_recorded() || !pass.loss.can_be_recorded() {
            return by_launches();
        }
        let trained = pass.model.params().trainable();
        let key = Key {
            images: images.shape().clone(),
            targets: (targets.tensor().shape().clone(), targets.tensor().dtype()),
            trained: trained.iter().map(|(_, var)| var.id()).collect(),
            precision: pass.precision,
            seed,
        };
        match self.followed.meet(key) {
            Meeting::Known => {}
            Meeting::Passing => return by_launches(),
            Meeting::New => self.state = State::WarmingUp(0),
        }
        match &mut self.state {
            State::Recorded(recorded) => recorded.replay(images, targets.tensor(), step),
            State::WarmingUp(passes) if *passes < WARM_UP => {
                *passes += 1;
                by_launches()
            }
            State::WarmingUp(_) => {
                let device = images.device();
                device.synchronize()?;
                let started = Instant::now();
                let gradients = Graph::prepare(device, by_launches)??;
                let launched = started.elapsed();
                device.synchronize()?;
                let share = launched.as_secs_f64() / started.elapsed().as_secs_f64();
                self.state = State::ByLaunches;
                if share > LAUNCHES_DOMINATE {
                    match Recorded::new(pass, &gradients) {
                        Ok(recorded) => self.state = State::Recorded(Box::new(recorded)),
                        Err(error) => {
                            tracing::debug!(%error, "Training steps are not recorded as a CUDA graph: {error}");
                        }
                    }
                }
                Ok(gradients)
            }
            State::ByLaunches => by_launches(),
        }
    }

    /// Whether passes are replayed.
    pub fn is_recorded(&self) -> bool {
        matches!(self.state, State::Recorded(_))
    }
}

impl Recorded {
    /// Records a pass; `made` is what one gave before, launch by launch.
    fn new(pass: TrainPass<'_>, made: &Gradients) -> Result<Self> {
        let images = pass.images.contiguous()?.copy()?;
        let kept_targets = pass.targets.tensor().contiguous()?.copy()?;
        let (kept_loss, logits) = (made.loss.zeros_like()?, made.logits.zeros_like()?);
        let trained = pass.model.params().trainable().into_iter().map(|(_, var)| var);
        let grads = trained
            .filter(|var| made.grads.get(var).is_some())
            .map(|var| {
                let grad = var.zeros_like()?;
                Ok((var, grad))
            })
            .collect::<Result<Vec<_>>>()?;
        let targets = match pass.targets {
            Targets::Classes(_) => Targets::Classes(&kept_targets),
            Targets::Soft(_) => Targets::Soft(&kept_targets),
        };
        let device = images.device().clone();
        let recording = || -> Result<()> {
            let pass = TrainPass {
                images: &images,
                targets,
                ..pass
            };
            let found = pass.forward_backward()?;
            let mut from_to = vec![(&found.loss, &kept_loss), (&found.logits, &logits)];
            for (var, to) in &grads {
                from_to.extend(found.grads.get(var).map(|from| (from, to)));
            }
            Ok(copy_all(&from_to)?)
        };
        let graph = Graph::record(&device, || {
            recording().map_err(|error| candle_core::Error::wrap(error).into())
        })?;
        Ok(Self {
            graph,
            images,
            targets: kept_targets,
            loss: kept_loss,
            logits,
            grads,
        })
    }

    fn replay(&self, images: &Tensor, targets: &Tensor, step: u64) -> Result<Gradients> {
        copy_all(&[(&images.contiguous()?, &self.images)])?;
        self.targets.slice_set(&targets.contiguous()?, 0, 0)?;
        self.graph.replay(step)?;
        let mut grads = GradStore::default();
        for (var, grad) in &self.grads {
            grads.insert(var, grad.clone());
        }
        Ok(Gradients {
            // The next replay writes over these while the last step's may still be waiting to be read.
            loss: self.loss.copy()?,
            logits: self.logits.copy()?,
            grads,
        })
    }
}
