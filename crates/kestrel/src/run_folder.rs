//! The folder that a run writes to: made anew, or found again with its newest valid checkpoint.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, bail};
use kestrel_train::checkpoint::{BEST_FILE, Checkpoint, CheckpointFolder, Weights, remove_scratch_files, write_atomic};

use crate::config::TrainConfig;
use crate::exit;
use crate::run_lock::RunLock;

/// The effective configuration, in a run's folder.
pub(crate) const CONFIG_FILE: &str = "config.toml";
/// The picture of predictions, in a run's folder.
pub(crate) const PREDICTIONS_FILE: &str = "predictions.png";

/// A run's folder, which no other process writes to while this lives.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    _lock: RunLock,
}

/// A checkpoint to go on from.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) checkpoint: Checkpoint,
}

impl RunFolder {
    /// Makes a new folder for a run: `--name`, or the first of `<stem>-1`, `<stem>-2`, … that is free.
    pub(crate) fn create(config: &TrainConfig, stem: &str) -> Result<Self> {
        let runs = &config.runs_dir;
        let advice = |path: &Path| {
            format!(
                "cannot make the folder {}; choose another with --runs-dir",
                path.display()
            )
        };
        std::fs::create_dir_all(runs).with_context(|| advice(runs))?;
        if let Some(name) = &config.name {
            let path = runs.join(name);
            return match std::fs::create_dir(&path) {
                Ok(()) => Self::at(path),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(exists(&path, name)),
                Err(e) => Err(e).with_context(|| format!("cannot make the folder {}", path.display())),
            };
        }
        for number in 1u32.. {
            let path = runs.join(format!("{stem}-{number}"));
            match std::fs::create_dir(&path) {
                Ok(()) => return Self::at(path),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).with_context(|| advice(&path)),
            }
        }
        bail!("no free number is left for {stem} in {}", runs.display())
    }

    /// Takes a folder that is there.
    fn at(path: PathBuf) -> Result<Self> {
        let lock = RunLock::take(&path)?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Clears away what a killed process has left, and what lies beyond the checkpoint that the run goes on from.
    pub(crate) fn prepare(&self, resumed: Option<&Checkpoint>) -> Result<()> {
        remove_scratch_files(&self.path)?;
        let checkpoints = CheckpointFolder::of_run(&self.path);
        checkpoints.prepare()?;
        let Some(checkpoint) = resumed else {
            return Ok(());
        };
        let progress = checkpoint.progress();
        let abandoned = checkpoints.abandon_after(progress.step)?;
        for path in &abandoned {
            tracing::warn!("{} is set aside: the run goes on from before it", path.display());
        }
        if let (Some(best), false) = (progress.best_step, abandoned.is_empty()) {
            // The best weights may be of what is abandoned, and are then taken back.
            let file = checkpoints.file(best);
            if file.is_file() {
                let weights = Weights::load(&file)?;
                Weights::save_state_dict(&weights.tensors, &weights.info, &self.path.join(BEST_FILE))?;
            }
        }
        Ok(())
    }
}

/// Fails where the folder of `--name` is there: a new run would be refused it, and is told before data are opened.
pub(crate) fn require_free_name(config: &TrainConfig) -> Result<()> {
    match &config.name {
        Some(name) if config.runs_dir.join(name).exists() => Err(exists(&config.runs_dir.join(name), name)),
        _ => Ok(()),
    }
}

/// Why a new run cannot have the folder of this name. Whoever is at work there is named. Nothing is written: it may be no run's.
fn exists(path: &Path, name: &str) -> anyhow::Error {
    if !path.is_dir() {
        return exit::usage(anyhow!(
            "there is a file {}, so no run can be called {name}; choose another --name",
            path.display()
        ));
    }
    let error = anyhow!(
        "the run {} exists; continue it with --resume {0} (or --resume auto --name {name} if it has no checkpoint yet), or choose \
         another --name",
        path.display()
    );
    exit::usage(RunLock::holder_of(path).unwrap_or(error))
}

/// The run that `--resume PATH` means, and where it goes on: PATH is its folder, or one of its checkpoints.
pub(crate) fn open(path: &Path) -> Result<(RunFolder, Found)> {
    if path.is_dir() {
        let checkpoints = CheckpointFolder::of_run(path);
        let none = || {
            format!(
                "there is no checkpoint in {}; name a run's folder, or a file of its checkpoints",
                checkpoints.path().display()
            )
        };
        // Nothing is left in a folder that is no run's, not even a lock.
        if checkpoints.list()?.is_empty() {
            bail!(none());
        }
        let folder = RunFolder::at(path.to_owned())?;
        let found = newest_in(&folder)?.with_context(none)?;
        return Ok((folder, found));
    }
    if !path.is_file() {
        bail!(
            "there is no checkpoint at {}; name a run's folder, or a file of its checkpoints",
            path.display()
        );
    }
    let folder = CheckpointFolder::run_of(path).or_else(|| path.parent());
    let folder = folder
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let folder = RunFolder::at(folder.to_owned())?;
    let found = Found {
        checkpoint: Checkpoint::load(path)?,
        path: path.to_owned(),
    };
    Ok((folder, found))
}

/// The run that `--resume auto` means: that of `--name`, else the one that was saved last. Without a folder there is no such
/// run; without a checkpoint it has not come as far as its first.
pub(crate) fn newest(config: &TrainConfig) -> Result<(Option<RunFolder>, Option<Found>)> {
    let path = match &config.name {
        Some(name) => Some(config.runs_dir.join(name)).filter(|path| path.is_dir()),
        None => saved_last(&config.runs_dir)?,
    };
    let Some(path) = path else {
        tracing::info!("There is no run to go on with; a new one begins");
        return Ok((None, None));
    };
    let folder = RunFolder::at(path)?;
    let found = newest_in(&folder)?;
    if found.is_none() {
        tracing::info!("{} has no checkpoint yet; it begins again", folder.path.display());
    }
    Ok((Some(folder), found))
}

fn newest_in(folder: &RunFolder) -> Result<Option<Found>> {
    let newest = CheckpointFolder::of_run(&folder.path).newest()?;
    Ok(newest.map(|newest| {
        for error in newest.passed_over {
            tracing::warn!("passed over: {error}");
        }
        Found {
            path: newest.path,
            checkpoint: newest.checkpoint,
        }
    }))
}

/// The run's folder with the checkpoint that was written last.
fn saved_last(runs: &Path) -> Result<Option<PathBuf>> {
    let entries = match std::fs::read_dir(runs) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        entries => entries.with_context(|| format!("cannot list {}", runs.display()))?,
    };
    let mut last: Option<(SystemTime, PathBuf)> = None;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", runs.display()))?.path();
        // Pages that compare runs lie there too.
        if !path.is_dir() {
            continue;
        }
        let checkpoints = CheckpointFolder::of_run(&path).list()?;
        let times = checkpoints
            .iter()
            .filter_map(|(_, file)| file.metadata().ok()?.modified().ok());
        let candidate = times.max().map(|time| (time, path));
        last = last.max(candidate);
    }
    Ok(last.map(|(_, path)| path))
}

/// Saves the effective configuration, for this run and for others that take it: without the run's name, which is its folder's.
/// `data` is where its data were found: of this the whole path is saved, so that they are found from any other folder. Checkpoints
/// hold the path as it was given: they are the same wherever a run lies.
pub(crate) fn save_config(folder: &Path, config: &TrainConfig, data: Option<&Path>) -> Result<()> {
    let saved = TrainConfig {
        name: None,
        data: data.map(whole),
        ..config.clone()
    };
    Ok(write_atomic(&folder.join(CONFIG_FILE), saved.to_toml()?.as_bytes())?)
}

/// The path from the root; as it is where that cannot be told, or not be saved.
pub(crate) fn whole(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).ok().filter(|whole| whole.to_str().is_some());
    whole.unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(runs: PathBuf) -> TrainConfig {
        TrainConfig {
            runs_dir: runs,
            ..TrainConfig::default()
        }
    }

    #[test]
    fn numbers_are_the_first_free_and_names_are_never_reused() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path().join("runs"));
        assert!(RunFolder::create(&config, "a").unwrap().path().ends_with("a-1"));
        assert!(RunFolder::create(&config, "a").unwrap().path().ends_with("a-2"));
        config.name = Some("b".into());
        let first = RunFolder::create(&config, "a").unwrap();
        let error = RunFolder::create(&config, "a").unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
        drop(first);
        for error in [
            RunFolder::create(&config, "a").unwrap_err(),
            require_free_name(&config).unwrap_err(),
        ] {
            let exit = error.downcast_ref::<exit::Exit>().unwrap();
            assert!(exit.code == 2 && exit.message.contains("--resume"), "{exit}");
        }
    }

    #[test]
    fn a_name_that_is_taken_by_no_run_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path().to_owned());
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/poem.txt"), "").unwrap();
        std::fs::write(dir.path().join("b"), "").unwrap();
        for (name, words) in [("a", "--resume"), ("b", "there is a file")] {
            config.name = Some(name.into());
            for error in [
                RunFolder::create(&config, "x").unwrap_err(),
                require_free_name(&config).unwrap_err(),
            ] {
                let exit = error.downcast_ref::<exit::Exit>().unwrap();
                assert!(exit.code == 2 && exit.message.contains(words), "{exit}");
                assert!(exit.message.contains("another --name"), "{exit}");
            }
        }
        assert_eq!(
            std::fs::read_dir(dir.path().join("a")).unwrap().count(),
            1,
            "something was left"
        );
    }

    #[test]
    fn auto_begins_a_run_where_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path().join("runs"));
        assert!(matches!(newest(&config).unwrap(), (None, None)));
        config.name = Some("a".into());
        assert!(matches!(newest(&config).unwrap(), (None, None)));
        std::fs::create_dir_all(dir.path().join("runs/a")).unwrap();
        assert!(matches!(newest(&config).unwrap(), (Some(_), None)));
    }

    #[test]
    fn auto_looks_into_folders_alone() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path().to_owned());
        std::fs::write(dir.path().join("comparison.html"), "").unwrap();
        assert!(matches!(newest(&config).unwrap(), (None, None)));
    }

    #[test]
    fn a_path_without_a_checkpoint_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("checkpoints"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "something was left");
        let error = open(&dir.path().join("x.safetensors")).unwrap_err().to_string();
        assert!(error.contains("x.safetensors"), "{error}");
    }
}
