//! Saving and resuming.
//!
//! A run's folder holds the weights of the best epoch, `best.safetensors`, and under `checkpoints` all that a resumed run
//! needs, a file for each time that it was saved. Each is written whole or not at all (see [`write_atomic`]).

mod atomic_file;
mod checkpointer;
mod disk;
mod folder;
mod format;

pub(crate) use atomic_file::remove_scratch_files_of_age;
pub use atomic_file::{remove_scratch_files, write_atomic, write_atomic_on};
pub use checkpointer::{BEST_FILE, Checkpointer, Every};
pub use disk::{Disk, LocalDisk, SyncWrite};
pub use folder::{CheckpointFolder, Newest};
pub use format::{Checkpoint, Weights};
