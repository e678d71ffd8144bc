//! Training steps on one batch: forward, loss, backward, update, and the loss read back after the last.

use anyhow::Result;
use candle_core::Tensor;
use kestrel_kernels::autocast::Precision;
use kestrel_models::{Mode, Model};
use kestrel_train::loss::{CrossEntropyLoss, Targets};
use kestrel_train::optim::Optimizer;
use kestrel_train::{Recorder, TrainPass};

use super::clock;
use crate::cli::BenchArgs;

/// How steps are measured.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    /// Images of a batch.
    pub(super) batch: usize,
    /// Steps of a measurement.
    count: u64,
    repeats: u64,
    precision: Precision,
}

impl Steps {
    /// As the command says; `batch` where it does not.
    pub(super) fn new(args: &BenchArgs, batch: usize) -> Self {
        Self {
            batch: args.batch_size.map_or(batch, |batch| batch as usize),
            count: args.steps,
            repeats: args.repeats,
            precision: args.precision.into(),
        }
    }

    /// One step a measurement, in `f32`.
    pub(super) fn plain(batch: usize, repeats: u64) -> Self {
        Self {
            batch,
            count: 1,
            repeats,
            precision: Precision::F32,
        }
    }

    /// Images a second of each measurement.
    pub(super) fn measure(
        self,
        model: &dyn Model,
        optimizer: &mut dyn Optimizer,
        images: &Tensor,
        targets: &Tensor,
    ) -> Result<Vec<f64>> {
        let loss = CrossEntropyLoss::default();
        // As the trainer does, so on a GPU a step whose launches dominate is replayed.
        let mut recorder = Recorder::default();
        let mut step = 0;
        clock(self.batch * self.count as usize, self.repeats, || {
            let mut last = None;
            for _ in 0..self.count {
                let pass = recorder.forward_backward(TrainPass {
                    model,
                    loss: &loss,
                    precision: self.precision,
                    images,
                    targets: Targets::Classes(targets),
                    mode: Mode::Train { seed: 0, step },
                })?;
                optimizer.step(&pass.grads)?;
                last = Some(pass.loss);
                step += 1;
            }
            if let Some(loss) = last {
                loss.to_scalar::<f32>()?;
            }
            Ok(())
        })
    }
}
