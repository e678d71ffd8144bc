//! Replacing a file whole.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::disk::{Disk, LocalDisk};
use crate::{Error, Result};

/// Replaces `path` by `bytes`: after a crash at any instant, the old or the new contents stand there, never a mixture.
///
/// The bytes go to a scratch file beside it (`.<name>.<process>-<number>.partial`, which no other writer has), which is synced,
/// renamed onto `path`, and the folder synced. After `Ok` the new contents survive a power loss on a local file system. Of
/// several that write one file at once, each writes it whole, and the last stays.
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

/// Removes the scratch files that a process which was killed has left in a folder, into which no other writes now. Gives their
/// paths.
///
/// # Errors
/// [`Error::Read`] where the folder cannot be listed, [`Error::Write`] where a file cannot be removed.
pub fn remove_scratch_files(folder: &Path) -> Result<Vec<PathBuf>> {
    remove_scratch_files_of_age(folder, Duration::ZERO)
}

/// As [`remove_scratch_files`], but of those alone that nobody has written to for a time: others may write into the folder.
///
/// # Errors
/// Those of [`remove_scratch_files`].
pub(crate) fn remove_scratch_files_of_age(folder: &Path, age: Duration) -> Result<Vec<PathBuf>> {
    let read = |source| Error::Read {
        path: folder.to_owned(),
        source,
    };
    let mut removed = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') && name.ends_with(PARTIAL) && path.is_file() && is_of_age(&path, age) {
            fs::remove_file(&path).map_err(|source| Error::Write {
                path: path.clone(),
                source,
            })?;
            removed.push(path);
        }
    }
    Ok(removed)
}

/// Whether a file is at least so old; where no clock says, only if that is no age.
fn is_of_age(path: &Path, age: Duration) -> bool {
    let modified = fs::metadata(path).and_then(|data| data.modified());
    let since = modified.ok().and_then(|time| time.elapsed().ok());
    since.unwrap_or_default() >= age
}

const PARTIAL: &str = ".partial";

/// A name that no other process of this machine has, nor another call.
fn scratch(path: &Path) -> PathBuf {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (process, call) = (std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed));
    path.with_file_name(format!(".{name}.{process}-{call}{PARTIAL}"))
}

/// The folder that a file or a folder is in.
pub(super) fn folder_of(path: &Path) -> &Path {
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
        // The first is of an earlier version.
        let scratches = [
            dir.path().join(".a.safetensors.partial"),
            scratch(&dir.path().join("a.safetensors")),
        ];
        for name in ["a.safetensors", ".lock", "b.partial"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        for path in &scratches {
            fs::write(path, "torn").unwrap();
        }
        let day = Duration::from_secs(24 * 60 * 60);
        assert!(remove_scratch_files_of_age(dir.path(), day).unwrap().is_empty());
        let old = dir.path().join(".old.9-9.partial");
        let before = std::time::SystemTime::now() - 2 * day;
        fs::File::create(&old).unwrap().set_modified(before).unwrap();
        assert_eq!(remove_scratch_files_of_age(dir.path(), day).unwrap(), [old]);
        let mut removed = remove_scratch_files(dir.path()).unwrap();
        removed.sort_by_key(|path| scratches.iter().position(|scratch| scratch == path));
        assert_eq!(removed, scratches);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    /// A disk on which, while a file is written, another writes the same one.
    struct Crowded(PathBuf);

    impl Disk for Crowded {
        fn create(&self, path: &Path) -> io::Result<Box<dyn SyncWrite>> {
            let file = LocalDisk.create(path)?;
            write_atomic(&self.0, b"other").unwrap();
            Ok(file)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            assert_eq!(fs::read(&self.0)?, b"other");
            LocalDisk.rename(from, to)
        }

        fn sync_folder(&self, folder: &Path) -> io::Result<()> {
            LocalDisk.sync_folder(folder)
        }

        fn sync_file(&self, path: &Path) -> io::Result<()> {
            LocalDisk.sync_file(path)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            LocalDisk.remove(path)
        }
    }

    #[test]
    fn two_that_write_one_file_at_once_are_not_in_each_others_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomic_on(&Crowded(path.clone()), &path, b"one").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
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
        let said = disk.0.lock().unwrap();
        let scratch = said[0].strip_prefix("create ").unwrap();
        assert!(scratch.starts_with(".a.") && scratch.ends_with(PARTIAL), "{scratch}");
        let order = [
            format!("create {scratch}"),
            "write 4".to_owned(),
            "sync file".to_owned(),
            format!("rename {scratch}"),
            "onto a".to_owned(),
            "sync folder run".to_owned(),
        ];
        assert_eq!(*said, order);
    }
}
