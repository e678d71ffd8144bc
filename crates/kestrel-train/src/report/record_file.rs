//! JSON files of a run's folder: written whole, read where they are there.

use std::io::ErrorKind;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::checkpoint::write_atomic;
use crate::{Error, Result};

/// Writes a record, whole or not at all.
pub(super) fn save(record: &impl Serialize, path: &Path) -> Result<()> {
    let json = serde_json::to_vec(record).map_err(|e| Error::Write {
        path: path.to_owned(),
        source: e.into(),
    })?;
    write_atomic(path, &json)
}

/// A file's text; `None` where there is no file.
pub(super) fn text(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// A record; `None` where there is no file.
pub(super) fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(text) = text(path)? else {
        return Ok(None);
    };
    let invalid = |e: serde_json::Error| Error::InvalidRecord {
        path: path.to_owned(),
        reason: e.to_string(),
    };
    serde_json::from_str(&text).map(Some).map_err(invalid)
}
