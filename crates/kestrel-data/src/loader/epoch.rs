//! The batches of one epoch, made ahead on the loader's threads.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use super::Batch;
use super::make_batch::{BatchMaker, Made, panic_message};
use crate::error::{Error, Result};

/// An iterator over an epoch's batches, in order.
///
/// Up to the prefetch depth, batches are made at once: while one waits for its last image, the next keeps the other threads
/// busy. Ends after the first error. Dropping it drops the batches that are not begun and waits for those that are.
#[must_use = "an epoch makes batches as it is iterated over"]
pub struct Epoch {
    maker: Arc<BatchMaker>,
    epoch: u64,
    order: Vec<usize>,
    batch_size: usize,
    prefetch: usize,
    /// The number in the epoch of the order's first batch.
    first_batch: usize,
    /// Samples of the order whose batch has been asked for.
    begun: usize,
    /// The number in the epoch of the batch that comes next.
    position: usize,
    /// The batches asked for, in order.
    pending: VecDeque<Receiver<Result<Made>>>,
    stopped: Arc<AtomicBool>,
    waited: Duration,
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Epoch");
        fields.field("dataset", &self.maker.dataset.describe());
        fields.field("epoch", &self.epoch).field("next_batch", &self.position);
        fields.field("under_way", &self.pending.len()).finish_non_exhaustive()
    }
}

impl Epoch {
    pub(super) fn start(
        maker: Arc<BatchMaker>,
        epoch: u64,
        order: Vec<usize>,
        first_batch: usize,
        batch_size: usize,
        prefetch: usize,
    ) -> Self {
        let mut this = Self {
            first_batch,
            maker,
            epoch,
            order,
            batch_size,
            prefetch: prefetch.max(1),
            begun: 0,
            position: first_batch,
            pending: VecDeque::new(),
            stopped: Arc::default(),
            waited: Duration::ZERO,
        };
        this.begin_batches();
        this
    }

    /// Asks for batches until as many are under way as the prefetch depth says.
    fn begin_batches(&mut self) {
        while self.pending.len() < self.prefetch && self.begun < self.order.len() {
            let end = self.order.len().min(self.begun + self.batch_size);
            let indices = self.order[self.begun..end].to_vec();
            let number = self.first_batch + self.begun / self.batch_size;
            self.begun = end;
            let (sender, receiver) = sync_channel(1);
            let (maker, stopped, epoch) = (Arc::clone(&self.maker), Arc::clone(&self.stopped), self.epoch);
            self.maker.spawn(move || {
                if !stopped.load(Ordering::Relaxed) {
                    // A panic outside of any sample, such as a label's, must not reach the threads' owner.
                    let made = catch_unwind(AssertUnwindSafe(|| maker.make(epoch, number, indices)));
                    let batch = made.unwrap_or_else(|payload| {
                        Err(Error::LoaderStopped {
                            dataset: maker.dataset.describe(),
                            message: panic_message(payload.as_ref()),
                        })
                    });
                    // Whoever receives the batch may count on the data set being let go.
                    drop(maker);
                    // The receiver is gone when the consumer has seen enough.
                    let _ = sender.send(batch);
                }
            });
            self.pending.push_back(receiver);
        }
    }

    /// How long the consumer has waited for batches so far; on a thread of a pool it makes batches meanwhile, which counts too.
    pub fn wait(&self) -> Duration {
        self.waited
    }

    /// The number in the epoch of the batch that comes next, from 0: where [`DataLoader::epoch_from`](super::DataLoader::epoch_from)
    /// goes on. Batches that were left out, because all their samples are bad, count too.
    pub fn next_batch(&self) -> usize {
        self.position
    }

    /// Begins no more batches, and waits for those under way.
    fn stop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.begun = self.order.len();
        for receiver in self.pending.drain(..) {
            // An error says that the batch was never begun.
            let _ = receive(&receiver);
        }
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let receiver = self.pending.pop_front()?;
            self.position += 1;
            let started = Instant::now();
            let received = receive(&receiver);
            self.waited += started.elapsed();
            let made = received.unwrap_or_else(|_| {
                Err(Error::LoaderStopped {
                    dataset: self.maker.dataset.describe(),
                    message: "a batch was given up".to_owned(),
                })
            });
            // Bad samples count in the batches' order, and not as batches come to be made, so that the same one is too many
            // for any number of threads.
            let batch = made.and_then(|Made { batch, bad }| {
                for (index, error) in bad {
                    self.maker.bad.admit(index, error)?;
                }
                batch.map(|batch| self.maker.finish(batch)).transpose()
            });
            match batch {
                Ok(batch) => {
                    self.begin_batches();
                    // A batch of which every sample is bad and skipped is none.
                    if let Some(batch) = batch {
                        return Some(Ok(batch));
                    }
                }
                Err(error) => {
                    self.stop();
                    return Some(Err(error));
                }
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // An error ends the epoch early, and batches of bad samples only are left out.
        let left = self.pending.len() + (self.order.len() - self.begun).div_ceil(self.batch_size);
        (0, Some(left))
    }
}

/// Waits for a batch. On a thread of a pool, which may be the one that the batch is to be made on, works meanwhile.
fn receive<T>(receiver: &Receiver<T>) -> std::result::Result<T, RecvTimeoutError> {
    const NAP: Duration = Duration::from_millis(1);
    loop {
        match rayon::yield_now() {
            None => return receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(rayon::Yield::Executed) => {}
            Some(rayon::Yield::Idle) => match receiver.recv_timeout(NAP) {
                Err(RecvTimeoutError::Timeout) => {}
                received => return received,
            },
        }
        match receiver.try_recv() {
            Ok(value) => return Ok(value),
            Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
            Err(TryRecvError::Empty) => {}
        }
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.stop();
    }
}
