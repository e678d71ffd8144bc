//! What a run keeps of its data: which they are, and where they were found.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kestrel_data::Dataset;
use kestrel_train::checkpoint::{Checkpoint, CheckpointFolder};
use serde::{Deserialize, Serialize};

use crate::config::{TrainConfig, TrainOptions};
use crate::data::{Data, Source};
use crate::run_folder::CONFIG_FILE;

/// What a checkpoint keeps for `train`. Paths are as they were given: it is the same wherever a run lies.
#[derive(Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) config: TrainConfig,
    /// The training images' fingerprint.
    pub(crate) data: String,
    /// The validation images' fingerprint.
    pub(crate) validation: String,
    /// The test images' fingerprint; checkpoints of earlier versions lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    test: Option<String>,
    /// The commit of the source, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) commit: Option<String>,
}

impl Saved {
    /// Of a run with this configuration on these images.
    pub(crate) fn new(config: &TrainConfig, data: &Data, commit: Option<String>) -> Result<Self> {
        let of = |images: &dyn Dataset| Ok::<_, kestrel_data::Error>(images.fingerprint()?.to_string());
        Ok(Self {
            config: config.clone(),
            data: of(data.train.as_ref())?,
            validation: of(data.val.as_ref())?,
            test: Some(of(data.test.as_ref())?),
            commit,
        })
    }

    /// What a checkpoint from `path` keeps.
    pub(crate) fn read(checkpoint: &Checkpoint, path: &Path) -> Result<Self> {
        serde_json::from_value(checkpoint.config().clone())
            .with_context(|| format!("the configuration in {}", path.display()))
    }

    /// How these images stand to the run's.
    fn compare(&self, data: &Data) -> Result<Images> {
        let now = Self::new(&self.config, data, None)?;
        Ok(if now.data != self.data {
            Images::Others
        } else if now.validation == self.validation && (self.test.is_none() || now.test == self.test) {
            Images::Own
        } else {
            Images::OwnToTrainOn
        })
    }
}

/// How images stand to those of a run, by their fingerprints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Images {
    /// They are the run's, wherever they lie.
    Own,
    /// The training images are the run's, and others are not.
    OwnToTrainOn,
    /// They are not the run's.
    Others,
    /// No checkpoint is left that tells.
    Unknown,
}

/// The run that weights are of.
pub(crate) struct TrainedRun {
    folder: PathBuf,
    config: TrainConfig,
    /// What its newest checkpoint keeps; read when it is asked for.
    saved: OnceCell<Option<Saved>>,
}

impl TrainedRun {
    /// The run of a folder, whose configuration lies there.
    pub(crate) fn new(folder: &Path, config: TrainConfig) -> Self {
        Self {
            folder: folder.to_owned(),
            config,
            saved: OnceCell::new(),
        }
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its configuration.
    pub(crate) fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The path of its data; none where they were downloaded.
    pub(crate) fn data(&self) -> Option<PathBuf> {
        let kept = self.config.data.as_deref()?;
        Some(whichever_is_there(kept, || self.saved()?.config.data.clone()))
    }

    /// Where its downloads are kept.
    pub(crate) fn data_dir(&self) -> PathBuf {
        whichever_is_there(&self.config.data_dir, || Some(self.saved()?.config.data_dir.clone()))
    }

    /// How the images of a source stand to this run's.
    pub(crate) fn compare(&self, source: &Source) -> Result<Images> {
        // What cannot be split as its images were, they are not.
        let Ok(data) = Data::split(source, &self.config) else {
            return Ok(Images::Others);
        };
        match self.saved() {
            Some(saved) => saved.compare(&data),
            None => Ok(Images::Unknown),
        }
    }

    fn saved(&self) -> Option<&Saved> {
        let read = || {
            let newest = CheckpointFolder::of_run(&self.folder).newest().ok()??;
            Saved::read(&newest.checkpoint, &newest.path).ok()
        };
        self.saved.get_or_init(read).as_ref()
    }
}

/// Where the data of a run are that goes on, and its downloads, by its folder's configuration; `given` is what its checkpoint says,
/// which counts where the folder says nothing.
pub(crate) fn places(folder: &Path, given: &TrainConfig) -> (Option<PathBuf>, PathBuf) {
    let kept = TrainOptions::from_file(&folder.join(CONFIG_FILE)).unwrap_or_default();
    let place = |kept: Option<PathBuf>, given: &Path| match kept {
        Some(kept) => whichever_is_there(&kept, || Some(given.to_owned())),
        None => given.to_owned(),
    };
    (
        given.data.as_deref().map(|data| place(kept.data, data)),
        place(kept.data_dir, &given.data_dir),
    )
}

/// Of the two paths of one place, `kept` by a run's folder, from the root, and `given` when the run began: the second where nothing is
/// left at the first, and the run has moved along with what lies there.
fn whichever_is_there(kept: &Path, given: impl FnOnce() -> Option<PathBuf>) -> PathBuf {
    if kept.exists() {
        return kept.to_owned();
    }
    given()
        .filter(|given| given.exists())
        .unwrap_or_else(|| kept.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_folder_while_anything_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let options = |data: &str, data_dir: &str| {
            let text = format!("data = {:?}\ndata-dir = {:?}\n", at(data), at(data_dir));
            std::fs::write(at(CONFIG_FILE), text).unwrap();
        };
        for name in ["pictures", "downloads", "given"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        let given = |data: Option<&str>, data_dir: &str| TrainConfig {
            data: data.map(at),
            data_dir: at(data_dir),
            ..TrainConfig::default()
        };
        let found = |given: &TrainConfig| places(dir.path(), given);
        // There is no configuration in the folder.
        let config = given(Some("x"), "y");
        assert_eq!(found(&config), (Some(at("x")), at("y")));
        options("pictures", "downloads");
        assert_eq!(found(&config), (Some(at("pictures")), at("downloads")));
        assert_eq!(found(&given(None, "given")), (None, at("downloads")));
        // Both have moved to where they were said to be.
        options("gone", "gone-too");
        assert_eq!(found(&given(Some("given"), "given")), (Some(at("given")), at("given")));
        assert_eq!(found(&config), (Some(at("gone")), at("gone-too")));
        let run = TrainedRun::new(dir.path(), given(Some("gone"), "downloads"));
        assert_eq!((run.data(), run.data_dir()), (Some(at("gone")), at("downloads")));
    }
}
