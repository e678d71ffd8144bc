//! The checkpoints of a run: their names by step, which one is the newest that is valid, which are kept.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::atomic_file::folder_of;
use super::disk::{Disk, LocalDisk};
use super::{Checkpoint, remove_scratch_files};
use crate::{Error, Result};

const PREFIX: &str = "step-";
const SUFFIX: &str = ".safetensors";
/// What stands before the name of a checkpoint that a run does not go on from.
const ABANDONED: &str = "abandoned-";

/// A folder of checkpoints, `step-00001234.safetensors` after 1,234 steps of the optimiser.
#[derive(Clone, Debug)]
pub struct CheckpointFolder(PathBuf);

/// The newest checkpoint that is valid.
#[derive(Debug)]
pub struct Newest {
    /// Its file.
    pub path: PathBuf,
    /// Its contents.
    pub checkpoint: Checkpoint,
    /// What is wrong with those of higher number.
    pub passed_over: Vec<Error>,
}

impl CheckpointFolder {
    /// The checkpoints in a run's folder. Nothing is made or read yet.
    pub fn of_run(run: &Path) -> Self {
        Self(run.join("checkpoints"))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The run's folder to which a checkpoint's file belongs.
    pub fn run_of(file: &Path) -> Option<&Path> {
        let folder = file.parent()?;
        (folder.file_name()? == "checkpoints").then(|| folder.parent())?
    }

    /// The file of the checkpoint after that many steps.
    pub fn file(&self, step: u64) -> PathBuf {
        self.0.join(format!("{PREFIX}{step:08}{SUFFIX}"))
    }

    /// Makes the folder, so that its name and that of the run's folder survive a power loss, or removes the scratch files from it
    /// where it is there.
    ///
    /// # Errors
    /// [`Error::Write`] where it cannot be made, and those of [`remove_scratch_files`].
    pub fn prepare(&self) -> Result<()> {
        let failed = |source| Error::Write {
            path: self.0.clone(),
            source,
        };
        let is_new = !self.0.is_dir();
        fs::create_dir_all(&self.0).map_err(failed)?;
        if is_new {
            let run = folder_of(&self.0);
            LocalDisk.sync_folder(run).map_err(failed)?;
            match LocalDisk.sync_folder(folder_of(run)) {
                // One may make folders in a folder that one may not read.
                Err(e) if e.kind() == ErrorKind::PermissionDenied => {}
                result => result.map_err(failed)?,
            }
        }
        for path in remove_scratch_files(&self.0)? {
            tracing::debug!("Removed {}, which a killed process had left", path.display());
        }
        Ok(())
    }

    /// The checkpoints by number, the lowest first; none where there is no folder, or a file in its place or its run's.
    ///
    /// # Errors
    /// [`Error::Read`] where the folder cannot be listed.
    pub fn list(&self) -> Result<Vec<(u64, PathBuf)>> {
        let read = |source| Error::Read {
            path: self.0.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.0) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
            entries => entries.map_err(read)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(read)?;
            let name = entry.file_name();
            if let Some(step) = name.to_str().and_then(number) {
                found.push((step, entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The valid checkpoint of the highest number; none where there is none.
    ///
    /// # Errors
    /// [`Error::Read`] where the folder cannot be listed. A checkpoint that cannot be read is passed over.
    pub fn newest(&self) -> Result<Option<Newest>> {
        let mut passed_over = Vec::new();
        for (_, path) in self.list()?.into_iter().rev() {
            match Checkpoint::load(&path) {
                Ok(checkpoint) => {
                    return Ok(Some(Newest {
                        path,
                        checkpoint,
                        passed_over,
                    }));
                }
                Err(error) => passed_over.push(error),
            }
        }
        match passed_over.is_empty() {
            true => Ok(None),
            // The first is the newest's.
            false => Err(passed_over.swap_remove(0)),
        }
    }

    /// Gives the checkpoints beyond `step` a name under which nothing looks for them: a run that goes on from `step` would
    /// else be mixed with what came after. Gives their new paths.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn abandon_after(&self, step: u64) -> Result<Vec<PathBuf>> {
        let later = self.list()?.into_iter().filter(|(number, _)| *number > step);
        let mut abandoned = Vec::new();
        for (_, path) in later {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let new = path.with_file_name(format!("{ABANDONED}{name}"));
            fs::rename(&path, &new).map_err(|source| Error::Write { path, source })?;
            abandoned.push(new);
        }
        Ok(abandoned)
    }

    /// Removes all checkpoints but the `keep_last` of the highest numbers up to `newest`, and that of `best`; all are kept for
    /// 0. Nothing is removed unless `newest` reads back as it should.
    ///
    /// # Errors
    /// What is wrong with `newest`, or [`Error::Write`] where a file cannot be removed.
    pub(super) fn prune(&self, disk: &dyn Disk, newest: u64, keep_last: usize, best: Option<u64>) -> Result<()> {
        if keep_last == 0 {
            return Ok(());
        }
        let mut files = self.list()?;
        files.retain(|(step, _)| *step <= newest);
        let old = files.len().saturating_sub(keep_last);
        files.truncate(old);
        files.retain(|(step, _)| Some(*step) != best);
        if files.is_empty() {
            return Ok(());
        }
        Checkpoint::load(&self.file(newest))?;
        for (_, path) in files {
            disk.remove(&path).map_err(|source| Error::Write { path, source })?;
        }
        Ok(())
    }
}

/// The number in a checkpoint's name.
fn number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let digits = digits.bytes().all(|b| b.is_ascii_digit()).then_some(digits)?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_numbers() {
        assert_eq!(number("step-00000009.safetensors"), Some(9));
        assert_eq!(number("step-123456789012.safetensors"), Some(123_456_789_012));
        for name in [
            ".step-00000009.safetensors.partial",
            "abandoned-step-00000009.safetensors",
            "step-.safetensors",
            "step--9.safetensors",
            "step-+9.safetensors",
            "step-9.safetensors.old",
            "step-99999999999999999999999.safetensors",
        ] {
            assert_eq!(number(name), None, "{name}");
        }
    }

    #[test]
    fn a_file_in_a_folders_place_has_no_checkpoints() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("comparison.html");
        fs::write(&file, "").unwrap();
        assert!(CheckpointFolder::of_run(&file).list().unwrap().is_empty());
        fs::write(dir.path().join("checkpoints"), "").unwrap();
        assert!(CheckpointFolder::of_run(dir.path()).list().unwrap().is_empty());
    }

    #[test]
    fn the_run_of_a_checkpoint() {
        assert_eq!(
            CheckpointFolder::run_of(Path::new("runs/a/checkpoints/step-00000001.safetensors")),
            Some(Path::new("runs/a"))
        );
        assert_eq!(CheckpointFolder::run_of(Path::new("runs/a/best.safetensors")), None);
    }
}
