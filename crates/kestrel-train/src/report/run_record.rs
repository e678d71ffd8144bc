//! All that a run's folder says of the run.

use std::path::Path;

use toml::Table;

use super::data_record::DataRecord;
use super::evaluation_record::EvaluationRecord;
use super::gallery::Gallery;
use super::record_file;
use super::run_log::{RunLog, ThroughputLine};
use crate::{Error, Result};

const CONFIG_FILE: &str = "config.toml";
const ENVIRONMENT_FILE: &str = "environment.json";

/// A run as its folder tells of it. Every part may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RunRecord {
    /// The folder's name.
    pub(super) name: String,
    pub(super) log: RunLog,
    pub(super) evaluation: Option<EvaluationRecord>,
    pub(super) gallery: Gallery,
    pub(super) data: DataRecord,
    pub(super) config: Table,
    /// Names and values, by name.
    pub(super) environment: Vec<(String, String)>,
}

impl RunRecord {
    /// Reads a run's folder.
    ///
    /// # Errors
    /// [`Error::Read`] for a folder or a file that cannot be read, [`Error::InvalidRecord`], [`Error::NoRun`] where nothing of a run
    /// is in it.
    pub(super) fn load(folder: &Path) -> Result<Self> {
        let read = |source| Error::Read {
            path: folder.to_owned(),
            source,
        };
        // The name that it goes by, also where it was given as `.`.
        let real = folder.canonicalize().map_err(read)?;
        let config = folder.join(CONFIG_FILE);
        let parsed = record_file::text(&config)?.map(|text| text.parse::<Table>());
        let config = parsed.transpose().map_err(|e| Error::InvalidRecord {
            path: config,
            reason: e.message().to_owned(),
        })?;
        let environment = record_file::load(&folder.join(ENVIRONMENT_FILE))?;
        let this = Self {
            name: real.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            log: RunLog::load(folder)?,
            evaluation: EvaluationRecord::load(folder)?,
            gallery: Gallery::load(folder)?.unwrap_or_default(),
            data: DataRecord::load(folder)?.unwrap_or_default(),
            config: config.unwrap_or_default(),
            environment: environment.map(|value| flat(&value)).unwrap_or_default(),
        };
        if this.log == RunLog::default() && this.evaluation.is_none() && this.config.is_empty() {
            return Err(Error::NoRun {
                path: folder.to_owned(),
            });
        }
        Ok(this)
    }

    /// The network's name.
    pub(super) fn model(&self) -> &str {
        let configured = self.config.get("model").and_then(toml::Value::as_str);
        if self.log.run.model.is_empty() {
            configured.unwrap_or_default()
        } else {
            &self.log.run.model
        }
    }

    /// Images a second of training, on average.
    pub(super) fn images_per_second(&self) -> Option<f64> {
        let epochs = &self.log.throughput;
        let sum = |of: fn(&ThroughputLine) -> f64| epochs.iter().map(of).sum::<f64>();
        // By time, not by epoch: images over seconds.
        let rate = sum(|e| e.images_per_second * e.seconds) / sum(|e| e.seconds);
        (rate.is_finite() && rate > 0.0).then_some(rate)
    }

    /// The options, with values as text.
    pub(super) fn options(&self) -> impl Iterator<Item = (&str, String)> {
        let text = |value: &toml::Value| match value {
            toml::Value::String(text) => text.clone(),
            // As a person writes it: 1e-8.
            toml::Value::Float(value) if *value != 0.0 && value.abs() < 1e-3 => format!("{value:e}"),
            other => other.to_string(),
        };
        self.config
            .iter()
            .map(move |(name, value)| (name.as_str(), text(value)))
    }
}

/// The leaves of a JSON value with their names.
fn flat(value: &serde_json::Value) -> Vec<(String, String)> {
    fn walk(name: &str, value: &serde_json::Value, found: &mut Vec<(String, String)>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (field, value) in fields {
                    let name = if name.is_empty() {
                        field.clone()
                    } else {
                        format!("{name}.{field}")
                    };
                    walk(&name, value, found);
                }
            }
            serde_json::Value::Array(values) => {
                let texts: Vec<String> = values.iter().map(plain).collect();
                found.push((name.to_owned(), texts.join(" ")));
            }
            serde_json::Value::Null => {}
            leaf => found.push((name.to_owned(), plain(leaf))),
        }
    }
    fn plain(value: &serde_json::Value) -> String {
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }
    let mut found = Vec::new();
    walk("", value, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("a-run");
        std::fs::create_dir(&run).unwrap();
        let error = RunRecord::load(&run).unwrap_err().to_string();
        assert!(error.contains("a-run"), "{error}");
        std::fs::write(
            run.join(CONFIG_FILE),
            "model = \"cnn\"\neps = 0.00000001\nmilestones = [1, 2]",
        )
        .unwrap();
        let environment = r#"{"commit": "abc", "cpu": {"cores": 2, "features": ["avx2", "fma"]}, "gpu": null}"#;
        std::fs::write(run.join(ENVIRONMENT_FILE), environment).unwrap();
        let record = RunRecord::load(&run).unwrap();
        assert_eq!((record.name.as_str(), record.model()), ("a-run", "cnn"));
        let options: Vec<_> = record.options().collect();
        assert!(options.contains(&("milestones", "[1, 2]".to_owned())), "{options:?}");
        assert!(options.contains(&("eps", "1e-8".to_owned())), "{options:?}");
        let want = [("commit", "abc"), ("cpu.cores", "2"), ("cpu.features", "avx2 fma")];
        let got: Vec<(&str, &str)> = record.environment.iter().map(|(a, b)| (&**a, &**b)).collect();
        assert_eq!(got, want);
        std::fs::write(run.join(CONFIG_FILE), "model = ").unwrap();
        assert!(matches!(RunRecord::load(&run), Err(Error::InvalidRecord { .. })));
    }

    #[test]
    fn speed_is_images_over_seconds() {
        let epoch = |seconds, images_per_second| ThroughputLine {
            seconds,
            images_per_second,
            ..ThroughputLine::default()
        };
        let mut record = RunRecord::default();
        assert_eq!(record.images_per_second(), None);
        record.log.throughput = vec![epoch(1.0, 100.0), epoch(3.0, 20.0)];
        assert_eq!(record.images_per_second(), Some(40.0));
    }
}
