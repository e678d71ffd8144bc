//! One file of features: those of one view of a data set.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use kestrel_data::Fingerprint;
use kestrel_models::StateDict;
use kestrel_models::weights::{parse, serialise};
use serde::{Deserialize, Serialize};

use crate::checkpoint::write_atomic;
use crate::{Error, Result};

const FEATURES: &str = "features";
const INDICES: &str = "indices";

/// The features of one view.
#[derive(Debug, PartialEq)]
pub(super) struct View {
    /// `[M, F]`, row by row.
    pub(super) features: Vec<f32>,
    /// `F`.
    pub(super) num_features: usize,
    /// `M`: each row's sample; rising.
    pub(super) indices: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// What the features are a function of.
    key: String,
    /// Of the tensors.
    sha256: String,
}

impl View {
    /// The row of a sample; none if it was dropped as damaged.
    pub(super) fn row(&self, index: usize) -> Option<&[f32]> {
        let row = self.indices.binary_search(&u32::try_from(index).ok()?).ok()?;
        self.features
            .get(row * self.num_features..(row + 1) * self.num_features)
    }

    /// Writes the view, whole or not at all.
    pub(super) fn save(&self, path: &Path, key: &str) -> Result<()> {
        let tensors = self.tensors()?;
        let record = Record {
            key: key.to_owned(),
            sha256: sha256(&tensors)?,
        };
        let record = serde_json::to_string(&record).map_err(|e| Error::Write {
            path: path.to_owned(),
            source: e.into(),
        })?;
        write_atomic(path, &serialise(&tensors, &record)?)
    }

    /// Reads a view; nothing if there is no such file, and an error that says why where it is not to be used.
    pub(super) fn load(path: &Path, key: &str) -> Result<Option<Self>> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                let path = path.to_owned();
                return Err(Error::Read { path, source });
            }
        };
        let invalid = |reason: &str| Error::InvalidFeatures {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let file = parse(&bytes, path).map_err(|e| invalid(&e.to_string()))?;
        let record: Option<Record> = file.record.and_then(|record| serde_json::from_str(&record).ok());
        let record = record.ok_or_else(|| invalid("it has no record of what its features are of"))?;
        if record.key != key {
            return Err(invalid("its features are of other weights, images or transforms"));
        }
        if sha256(&file.tensors)? != record.sha256 {
            return Err(invalid("its contents do not match their sha256"));
        }
        Self::of(&file.tensors)
            .map(Some)
            .ok_or_else(|| invalid("its tensors are not those of features"))
    }

    fn tensors(&self) -> Result<StateDict> {
        let rows = self.indices.len();
        let features = Tensor::from_slice(&self.features, (rows, self.num_features), &Device::Cpu)?;
        let indices = Tensor::from_slice(&self.indices, rows, &Device::Cpu)?;
        Ok([(FEATURES.to_owned(), features), (INDICES.to_owned(), indices)].into())
    }

    fn of(tensors: &StateDict) -> Option<Self> {
        let (features, indices) = (tensors.get(FEATURES)?, tensors.get(INDICES)?);
        let (rows, num_features) = features.dims2().ok()?;
        let fits = features.dtype() == DType::F32 && indices.dtype() == DType::U32 && indices.dims() == [rows];
        let view = Self {
            features: features.flatten_all().ok()?.to_vec1().ok()?,
            num_features,
            indices: indices.to_vec1().ok()?,
        };
        (fits && view.indices.is_sorted_by(|a, b| a < b)).then_some(view)
    }
}

fn sha256(tensors: &StateDict) -> Result<String> {
    Ok(Fingerprint::of(&serialise(tensors, "")?).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View {
            features: vec![1.0, 2.0, -3.0, 4.0],
            num_features: 2,
            indices: vec![0, 7],
        }
    }

    #[test]
    fn a_view_comes_back_and_knows_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert_eq!(View::load(&path, "key").unwrap(), None);
        view().save(&path, "key").unwrap();
        let loaded = View::load(&path, "key").unwrap().unwrap();
        assert_eq!(loaded, view());
        assert_eq!(loaded.row(7), Some(&[-3.0, 4.0][..]));
        assert_eq!(loaded.row(1), None);
    }

    #[test]
    fn another_key_a_cut_and_every_changed_bit_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        view().save(&path, "key").unwrap();
        let error = View::load(&path, "other").unwrap_err().to_string();
        assert!(error.contains("other weights, images or transforms"), "{error}");
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            std::fs::write(&path, &bytes[..at]).unwrap();
            assert!(View::load(&path, "key").is_err(), "cut at {at}");
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            std::fs::write(&path, &changed).unwrap();
            // A space of the header's padding may become another character that counts for nothing.
            match View::load(&path, "key") {
                Ok(loaded) => assert_eq!(loaded, Some(view()), "bit of byte {at}"),
                Err(error) => assert!(error.to_string().contains('a'), "{error}"),
            }
        }
    }
}
