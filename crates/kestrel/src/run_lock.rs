//! One process at a time in a run's folder.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::environment;
use crate::exit::Exit;

/// The lock's file, in a run's folder.
const LOCK_FILE: &str = ".lock";

/// The right to write to a run's folder; the system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct RunLock {
    _file: File,
}

/// Who has it.
#[derive(Serialize, Deserialize)]
struct Holder {
    pid: u32,
    host: String,
    since: String,
}

impl RunLock {
    /// Takes the lock of a folder, or fails with the exit code of wrong arguments, and names who has it.
    pub(crate) fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK_FILE);
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.with_context(|| format!("cannot open the lock {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(folder, &mut file)),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        let holder = Holder {
            pid: std::process::id(),
            host: environment::host(),
            since: environment::utc(SystemTime::now()),
        };
        let text = serde_json::to_string(&holder).context("the lock's holder")?;
        file.set_len(0)
            .and_then(|()| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write the lock {}", path.display()))?;
        Ok(Self { _file: file })
    }

    /// The error that names who has the lock of a folder; none where nobody has. Nothing is made or written.
    pub(crate) fn holder_of(folder: &Path) -> Option<anyhow::Error> {
        let mut file = File::open(folder.join(LOCK_FILE)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(in_use(folder, &mut file)),
            _ => None,
        }
    }
}

/// The error of a folder whose lock, in `file`, another has.
fn in_use(folder: &Path, file: &mut File) -> anyhow::Error {
    let mut text = String::new();
    // Who it is helps, and is not needed to refuse.
    let _ = file.read_to_string(&mut text);
    let holder = serde_json::from_str(&text).map_or_else(
        |_| "another process".to_owned(),
        |Holder { pid, host, since }| format!("process {pid} on {host}, since {since}"),
    );
    let message = format!(
        "the run {} is in use by {holder}; wait for its end, or choose another --name",
        folder.display()
    );
    Exit {
        code: Exit::USAGE,
        message,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunLock::take(dir.path()).unwrap();
        let error = RunLock::take(dir.path()).unwrap_err();
        assert_eq!(error.downcast_ref::<Exit>().map(|exit| exit.code), Some(2));
        let text = error.to_string();
        assert!(text.contains(&format!("process {} on ", std::process::id())), "{text}");
        assert!(text.contains("UTC"), "{text}");
        let told = RunLock::holder_of(dir.path()).unwrap().to_string();
        assert_eq!(told, text);
        drop(first);
        assert!(RunLock::holder_of(dir.path()).is_none());
        RunLock::take(dir.path()).unwrap();
    }
}
