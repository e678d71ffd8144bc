//! The folder that a run writes to.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kestrel_train::checkpoint::{CHECKPOINT_FILE, write_atomic};

use crate::config::TrainConfig;

/// The effective configuration, in a run's folder.
pub(crate) const CONFIG_FILE: &str = "config.toml";
/// The picture of predictions, in a run's folder.
pub(crate) const PREDICTIONS_FILE: &str = "predictions.png";

/// Makes a new folder for a run: `--name`, or the first of `<stem>-1`, `<stem>-2`, … that is free.
pub(crate) fn create(config: &TrainConfig, stem: &str) -> Result<PathBuf> {
    let runs = &config.runs_dir;
    std::fs::create_dir_all(runs).with_context(|| {
        format!(
            "cannot make the folder {}; choose another with --runs-dir",
            runs.display()
        )
    })?;
    if let Some(name) = &config.name {
        let path = runs.join(name);
        return match std::fs::create_dir(&path) {
            Ok(()) => Ok(path),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => bail!(
                "the run {} exists; continue it with --resume {0}, or choose another --name",
                path.display()
            ),
            Err(e) => Err(e).with_context(|| format!("cannot make the folder {}", path.display())),
        };
    }
    for number in 1u32.. {
        let path = runs.join(format!("{stem}-{number}"));
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => {
                return Err(e).with_context(|| {
                    format!(
                        "cannot make the folder {}; choose another with --runs-dir",
                        path.display()
                    )
                });
            }
        }
    }
    bail!("no free number is left for {stem} in {}", runs.display())
}

/// The checkpoint that `--resume PATH` means: the file itself, or the one in a run's folder.
pub(crate) fn checkpoint_path(path: &Path) -> Result<PathBuf> {
    let file = if path.is_dir() {
        path.join(CHECKPOINT_FILE)
    } else {
        path.to_owned()
    };
    if !file.is_file() {
        bail!(
            "there is no checkpoint at {}; name a run's folder, or its {CHECKPOINT_FILE}",
            file.display()
        );
    }
    Ok(file)
}

/// Saves the effective configuration.
pub(crate) fn save_config(folder: &Path, config: &TrainConfig) -> Result<()> {
    Ok(write_atomic(&folder.join(CONFIG_FILE), config.to_toml()?.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_first_free_and_names_are_never_reused() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = TrainConfig {
            runs_dir: dir.path().join("runs"),
            ..TrainConfig::default()
        };
        assert!(create(&config, "a").unwrap().ends_with("a-1"));
        assert!(create(&config, "a").unwrap().ends_with("a-2"));
        config.name = Some("b".into());
        create(&config, "a").unwrap();
        let error = create(&config, "a").unwrap_err().to_string();
        assert!(error.contains("--resume"), "{error}");
    }

    #[test]
    fn resume_takes_a_folder_or_a_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(checkpoint_path(dir.path()).is_err());
        let file = dir.path().join(CHECKPOINT_FILE);
        std::fs::write(&file, "").unwrap();
        assert_eq!(checkpoint_path(dir.path()).unwrap(), file);
        assert_eq!(checkpoint_path(&file).unwrap(), file);
    }
}
