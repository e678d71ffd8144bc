//! Saving and resuming.
//!
//! A run's folder holds two files that this module writes, each whole or not at all (see [`write_atomic`]):
//! `best.safetensors`, the weights of the best epoch, and `checkpoint.safetensors`, all that a resumed run needs.

mod atomic_file;
mod checkpointer;
mod format;

pub use atomic_file::write_atomic;
pub use checkpointer::{BEST_FILE, CHECKPOINT_FILE, Checkpointer};
pub use format::{Checkpoint, Weights};
