//! The manifest that marks a folder of fetched files as complete: each file's sha256, size and name.
//!
//! It is written last, into the staging folder that is then renamed. So a folder with a manifest was complete once, and the
//! checksums say whether it still is.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;

/// The manifest's file name.
pub(crate) const NAME: &str = "kestrel-manifest.txt";

/// The files of a folder: name to sha256 (in hexadecimal) and size.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest(BTreeMap<String, (String, u64)>);

impl Manifest {
    /// Reads a folder's manifest, if it has one. Lines that are not of its form are ignored; a file that is not listed then
    /// fails [`Self::check`].
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(NAME);
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(Error::io("read", &path))?,
        };
        let entry = |line: &str| {
            let (sha256, rest) = line.split_once(' ')?;
            let (size, name) = rest.split_once(' ')?;
            Some((name.to_owned(), (sha256.to_owned(), size.parse().ok()?)))
        };
        Ok(Some(Self(text.lines().filter_map(entry).collect())))
    }

    /// Adds a file.
    pub(crate) fn add(&mut self, name: &str, sha256: Fingerprint, size: u64) {
        self.0.insert(name.to_owned(), (sha256.to_string(), size));
    }

    /// The manifest as a file's text.
    pub(crate) fn text(&self) -> String {
        self.0
            .iter()
            .map(|(name, (sha256, size))| format!("{sha256} {size} {name}\n"))
            .collect()
    }

    /// Compares a file's bytes with its entry.
    pub(crate) fn check(&self, name: &str, bytes: &[u8], path: &Path) -> Result<()> {
        let got = Fingerprint::of(bytes).to_string();
        match self.0.get(name) {
            Some((sha256, size)) if *sha256 == got && *size == bytes.len() as u64 => Ok(()),
            entry => {
                let expected = entry.map_or_else(|| "in the manifest".to_owned(), |(sha256, _)| sha256.clone());
                Err(Error::ChecksumMismatch {
                    path: path.to_path_buf(),
                    expected,
                    got,
                })
            }
        }
    }
}
