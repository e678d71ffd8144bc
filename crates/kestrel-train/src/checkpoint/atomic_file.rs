//! Replacing a file whole.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::{Error, Result};

/// Replaces `path` by `bytes`: after a crash at any instant, the old or the new contents stand there, never a mixture.
///
/// The bytes go to a scratch file beside it (`.<name>.partial`), which is synced, renamed onto `path`, and the folder
/// synced. After `Ok` the new contents survive a power loss on a local file system.
///
/// # Errors
/// [`Error::Write`]; the old contents stand, and the scratch file is removed.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let scratch = path.with_file_name(format!(".{name}.partial"));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&scratch)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&scratch, path)?;
        sync_folder(path)
    };
    write().map_err(|source| {
        // The first error is the one to report; a scratch file that cannot be removed either is replaced next time.
        let _ = fs::remove_file(&scratch);
        Error::Write {
            path: path.to_owned(),
            source,
        }
    })
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// A folder cannot be opened for syncing on this system; the rename itself is atomic.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_leaves_no_scratch() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_names_the_path_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder");
        fs::create_dir_all(path.join("full")).unwrap();
        let error = write_atomic(&path, b"x").unwrap_err().to_string();
        assert!(error.contains("folder"), "{error}");
        assert!(path.join("full").is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
