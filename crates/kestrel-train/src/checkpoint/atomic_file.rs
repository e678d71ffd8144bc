//! Replacing a file whole.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::disk::{Disk, LocalDisk};
use crate::{Error, Result};

/// Replaces `path` by `bytes`: after a crash at any instant, the old or the new contents stand there, never a mixture.
///
/// The bytes go to a scratch file beside it (`.<name>.partial`), which is synced, renamed onto `path`, and the folder
/// synced. After `Ok` the new contents survive a power loss on a local file system.
///
/// # Errors
/// [`Error::Write`]; the old contents stand, and the scratch file is removed.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_on(&LocalDisk, path, bytes)
}

/// As [`write_atomic`], on a disk of the caller's.
///
/// # Errors
/// Those of [`write_atomic`].
pub fn write_atomic_on(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let scratch = scratch(path);
    let write = || -> std::io::Result<()> {
        let mut file = disk.create(&scratch)?;
        file.write_all(bytes)?;
        file.sync()?;
        drop(file);
        disk.rename(&scratch, path)?;
        disk.sync_folder(folder_of(path))
    };
    write().map_err(|source| {
        // The first error is the one to report; a scratch file that cannot be removed either is removed at the next start.
        let _ = disk.remove(&scratch);
        Error::Write {
            path: path.to_owned(),
            source,
        }
    })
}

/// Removes the scratch files that a process which was killed has left in a folder. Gives their paths.
///
/// # Errors
/// [`Error::Read`] where the folder cannot be listed, [`Error::Write`] where a file cannot be removed.
pub fn remove_scratch_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = |source| Error::Read {
        path: folder.to_owned(),
        source,
    };
    let mut removed = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') && name.ends_with(PARTIAL) && path.is_file() {
            fs::remove_file(&path).map_err(|source| Error::Write {
                path: path.clone(),
                source,
            })?;
            removed.push(path);
        }
    }
    Ok(removed)
}

const PARTIAL: &str = ".partial";

fn scratch(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{PARTIAL}"))
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::super::disk::SyncWrite;
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

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".a.safetensors.partial", "a.safetensors", ".lock", "b.partial"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let removed = remove_scratch_files(dir.path()).unwrap();
        assert_eq!(removed, [dir.path().join(".a.safetensors.partial")]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    /// Writes nothing, and remembers what it was asked for.
    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<String>>>);

    impl Recorder {
        fn say(&self, what: &str, path: &Path) -> io::Result<()> {
            let name = path.file_name().unwrap_or_default().display();
            self.0.lock().unwrap().push(format!("{what} {name}"));
            Ok(())
        }
    }

    impl Write for Recorder {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.say("write", Path::new(&bytes.len().to_string()))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl SyncWrite for Recorder {
        fn sync(&self) -> io::Result<()> {
            self.say("sync", Path::new("file"))
        }
    }

    impl Disk for Recorder {
        fn create(&self, path: &Path) -> io::Result<Box<dyn SyncWrite>> {
            self.say("create", path)?;
            Ok(Box::new(self.clone()))
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.say("rename", from)?;
            self.say("onto", to)
        }

        fn sync_folder(&self, folder: &Path) -> io::Result<()> {
            self.say("sync folder", folder)
        }

        fn sync_file(&self, path: &Path) -> io::Result<()> {
            self.say("sync", path)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            self.say("remove", path)
        }
    }

    #[test]
    fn the_file_is_synced_before_its_rename_and_the_folder_after() {
        let disk = Recorder::default();
        write_atomic_on(&disk, Path::new("run/a"), b"four").unwrap();
        let order = [
            "create .a.partial",
            "write 4",
            "sync file",
            "rename .a.partial",
            "onto a",
            "sync folder run",
        ];
        assert_eq!(*disk.0.lock().unwrap(), order);
    }
}
