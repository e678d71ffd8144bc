//! Locks between processes: a file that one of them holds. The system takes it back when that process ends, however it ends.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Opens a file, made if it is not there, and locks it for as long as it stays open.
///
/// # Errors
/// [`Error::Busy`] while another holds it; [`Error::Io`].
pub(crate) fn lock(path: &Path) -> Result<File> {
    let opened = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let file = opened.map_err(Error::io("create", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Busy {
            path: path.to_path_buf(),
        }),
        Err(TryLockError::Error(e)) => Err(Error::io("lock", path)(e)),
    }
}

/// The right to make the folder `name` in `data_dir`: to fetch, to unpack and to rename.
///
/// Its file stays: were it removed, one process could hold the removed file, and another a new one of the same name.
pub(crate) fn lock_folder(data_dir: &Path, name: &str) -> Result<File> {
    let path: PathBuf = data_dir.join(format!(".{name}.lock"));
    lock(&path)
}
