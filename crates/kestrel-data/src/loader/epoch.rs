//! The batches of one epoch, made ahead by a thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Batch;
use super::make_batch::{BatchMaker, panic_message};
use crate::error::{Error, Result};

/// An iterator over an epoch's batches, in order.
///
/// Ends after the first error. Dropping it stops and joins the thread that makes the batches.
#[must_use = "an epoch makes batches as it is iterated over"]
pub struct Epoch {
    receiver: Option<Receiver<Result<Option<Batch>>>>,
    thread: Option<JoinHandle<()>>,
    remaining: usize,
    dataset: String,
    waited: Duration,
}

impl Epoch {
    pub(super) fn start(
        maker: Arc<BatchMaker>,
        epoch: u64,
        order: Vec<usize>,
        batch_size: usize,
        prefetch: usize,
    ) -> Self {
        let remaining = order.len().div_ceil(batch_size);
        let dataset = maker.dataset.describe();
        // The channel holds the batches that wait; the thread holds one more.
        let (sender, receiver) = sync_channel(prefetch.saturating_sub(1));
        let failed = sender.clone();
        let work = move || {
            let mut buffer = Vec::new();
            for indices in order.chunks(batch_size) {
                let batch = maker.make(epoch, indices.to_vec(), &mut buffer);
                let stop = batch.is_err();
                // The receiver is gone when the consumer has seen enough.
                if sender.send(batch).is_err() || stop {
                    break;
                }
            }
        };
        let thread = match std::thread::Builder::new().name("load".into()).spawn(work) {
            Ok(thread) => Some(thread),
            Err(e) => {
                // The closure, and its sender with it, is gone; so this is what the consumer reads first.
                let error = Error::io("start", "the loader's thread".as_ref())(e);
                let _ = failed.try_send(Err(error));
                None
            }
        };
        Self {
            receiver: Some(receiver),
            thread,
            remaining,
            dataset,
            waited: Duration::ZERO,
        }
    }

    /// How long the consumer has waited for batches so far.
    pub fn wait(&self) -> Duration {
        self.waited
    }

    /// Stops the thread and joins it.
    fn stop(&mut self) -> std::thread::Result<()> {
        self.remaining = 0;
        self.receiver = None;
        self.thread.take().map_or(Ok(()), JoinHandle::join)
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.remaining > 0 {
            let started = Instant::now();
            let received = self.receiver.as_ref()?.recv();
            self.waited += started.elapsed();
            match received {
                Ok(Ok(batch)) => {
                    self.remaining -= 1;
                    // A batch of which every sample is bad and skipped is none.
                    if let Some(batch) = batch {
                        return Some(Ok(batch));
                    }
                }
                Ok(Err(error)) => {
                    self.remaining = 0;
                    return Some(Err(error));
                }
                // The thread ended early: a fault outside of any sample.
                Err(_) => {
                    let dataset = std::mem::take(&mut self.dataset);
                    let message = match self.stop() {
                        Ok(()) => "the loader's thread ended early".to_owned(),
                        Err(payload) => panic_message(payload.as_ref()),
                    };
                    return Some(Err(Error::LoaderStopped { dataset, message }));
                }
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // An error ends the epoch early, and batches of bad samples only are left out.
        (0, Some(self.remaining))
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        if self.stop().is_err() {
            tracing::error!(dataset = %self.dataset, "the loader's thread panicked");
        }
    }
}
