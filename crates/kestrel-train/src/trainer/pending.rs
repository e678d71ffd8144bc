//! The numbers of steps that are still on the device. The host reads them some steps later, so that it never waits for the step
//! that it has just begun; until then the device itself keeps an update by numbers that are none from the weights.

use std::collections::VecDeque;

use candle_core::{D, DType, Device, Tensor};
use kestrel_data::loader::Batch;

use crate::loss::Targets;
use crate::progress::Position;
use crate::{Error, NonFinite, Result};

/// So many batches wait at most.
const MOST: usize = 32;

/// Batches whose numbers have not been read.
pub(super) struct Pending {
    batches: VecDeque<Numbers>,
    /// `[]` of `f32`: 1, until a loss or a gradient is not finite; then 0 for good.
    gate: Tensor,
    /// Whether anything has been read.
    begun: bool,
    /// The loss of the last batch that was read.
    loss: f64,
    /// The gradients' norm of the last step that was read.
    grad_norm: f64,
}

/// A batch, or the end of a step that had fewer batches than others.
struct Numbers {
    /// Its number in the epoch, from 1.
    step: usize,
    images: Option<Images>,
    ended: Option<Ended>,
    lrs: Vec<f64>,
    /// Steps made before this one.
    steps_made: u64,
}

struct Images {
    indices: Vec<usize>,
    /// `[2]` of `f64`: the loss, and how many are classified as their target says.
    loss_and_correct: Tensor,
}

/// A step of the optimiser that a batch completed.
pub(super) struct Ended {
    /// The parameters that have a gradient.
    pub(super) names: Vec<String>,
    /// `[P]` of `f64`: the squared norm of each.
    pub(super) squares: Tensor,
    /// Of all batches of the step.
    pub(super) samples: Vec<usize>,
}

/// What a batch is pushed with.
pub(super) struct Pushed<'a> {
    pub(super) step: usize,
    pub(super) batch: &'a Batch,
    pub(super) loss: &'a Tensor,
    pub(super) logits: &'a Tensor,
    pub(super) lrs: Vec<f64>,
    pub(super) steps_made: u64,
}

impl Pending {
    pub(super) fn new(device: &Device) -> Result<Self> {
        Ok(Self {
            batches: VecDeque::new(),
            gate: Tensor::ones((), DType::F32, device)?,
            begun: false,
            loss: 0.0,
            grad_norm: 0.0,
        })
    }

    /// What the next update is gated by.
    pub(super) fn gate(&self) -> &Tensor {
        &self.gate
    }

    /// Shuts the gate for good unless a number is finite. It may lie on another device, as the loss of a user's own may.
    pub(super) fn require_finite(&mut self, number: &Tensor) -> Result<()> {
        let number = number.detach().to_device(self.gate.device())?.to_dtype(DType::F64)?;
        // 0, or NaN.
        let finite = number.sub(&number)?.eq(0f64)?.to_dtype(DType::F32)?;
        self.gate = self.gate.mul(&finite)?;
        Ok(())
    }

    /// Adds a batch.
    pub(super) fn push(&mut self, pushed: Pushed<'_>, ended: Option<Ended>) -> Result<()> {
        let Pushed {
            step,
            batch,
            loss,
            logits,
            lrs,
            steps_made,
        } = pushed;
        let predicted = logits.detach().argmax(D::Minus1)?.to_dtype(DType::U32)?;
        let targets = match Targets::of(batch) {
            Targets::Classes(classes) => classes.clone(),
            Targets::Soft(soft) => soft.argmax(D::Minus1)?.to_dtype(DType::U32)?,
        };
        let correct = predicted.eq(&targets)?.to_dtype(DType::F64)?.sum_all()?;
        let loss = loss.detach().to_device(correct.device())?.to_dtype(DType::F64)?;
        self.batches.push_back(Numbers {
            step,
            images: Some(Images {
                indices: batch.indices.clone(),
                loss_and_correct: Tensor::stack(&[loss, correct], 0)?,
            }),
            ended,
            lrs,
            steps_made,
        });
        Ok(())
    }

    /// Adds the end of a step whose batches were pushed before.
    pub(super) fn push_end(&mut self, step: usize, ended: Ended, lrs: Vec<f64>, steps_made: u64) {
        self.batches.push_back(Numbers {
            step,
            images: None,
            ended: Some(ended),
            lrs,
            steps_made,
        });
    }

    /// Whether it is time to read, whatever else there is to be done.
    pub(super) fn is_due(&self) -> bool {
        !self.begun || self.batches.len() >= MOST
    }

    /// The loss of the last batch that was read.
    pub(super) fn loss(&self) -> f64 {
        self.loss
    }

    /// The gradients' norm of the last step that was read.
    pub(super) fn grad_norm(&self) -> f64 {
        self.grad_norm
    }

    /// Reads everything into the epoch's means; waits for the device.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for the first step of numbers that are none.
    pub(super) fn read(&mut self, epoch: usize, position: &mut Position) -> Result<()> {
        self.begun = true;
        while let Some(numbers) = self.batches.pop_front() {
            let squares = match &numbers.ended {
                Some(ended) => ended.squares.to_vec1::<f64>()?,
                None => Vec::new(),
            };
            // In the order of the parameters, as the host adds them.
            let norm = squares.iter().sum::<f64>().sqrt();
            let norm = if numbers.ended.is_some() { norm } else { f64::NAN };
            let failed = |loss: f64, samples: &[usize]| {
                let names = numbers.ended.iter().flat_map(|ended| &ended.names);
                Err(Error::NonFinite(Box::new(NonFinite {
                    epoch,
                    step: numbers.step,
                    steps_made: numbers.steps_made,
                    lrs: numbers.lrs.clone(),
                    loss,
                    grad_norm: norm,
                    norms: names.cloned().zip(squares.iter().map(|square| square.sqrt())).collect(),
                    samples: samples.to_vec(),
                })))
            };
            if let Some(images) = &numbers.images {
                let read = images.loss_and_correct.to_vec1::<f64>()?;
                let (loss, correct) = (read.first().copied(), read.get(1).copied());
                let (loss, correct) = (loss.unwrap_or(f64::NAN), correct.unwrap_or_default());
                if !loss.is_finite() {
                    return failed(loss, &images.indices);
                }
                self.loss = loss;
                position
                    .accuracy
                    .add_counts(correct as u64, images.indices.len() as u64);
                position.loss.add(loss);
                position.recent_loss.add(loss);
            }
            if let Some(ended) = &numbers.ended {
                if !norm.is_finite() {
                    let loss = if numbers.images.is_some() {
                        self.loss
                    } else {
                        position.loss.value()
                    };
                    return failed(loss, &ended.samples);
                }
                self.grad_norm = norm;
            }
        }
        Ok(())
    }
}
