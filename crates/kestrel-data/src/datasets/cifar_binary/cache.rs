//! The copy of a data set that this program keeps: a folder that a manifest marks as complete, or a verified download.

use std::path::Path;

use super::{Layout, read_file};
use crate::datasets::{InMemory, Splits};
#[cfg(feature = "download")]
use crate::download::{Download, Options, Progress};
use crate::error::{Error, Result};
#[cfg(feature = "download")]
use crate::file_lock::lock_folder;
use crate::manifest::Manifest;

impl Layout {
    /// Opens the copy in `data_dir`, if it is there and complete: every file is compared with the manifest.
    pub(in crate::datasets) fn open_cached(&self, data_dir: &Path) -> Result<Option<Splits<InMemory>>> {
        let folder = data_dir.join(self.folder);
        if !folder.exists() {
            return Ok(None);
        }
        let _span = tracing::info_span!("load", source = %folder.display()).entered();
        let Some(manifest) = Manifest::read(&folder)? else {
            return Err(Error::Unverified { path: folder });
        };
        let file = |name: &str, size: u64| -> Result<Vec<u8>> {
            let path = folder.join(name);
            let bytes = read_file(&path, size)?;
            manifest.check(name, &bytes, &path)?;
            Ok(bytes)
        };
        self.read_splits(&folder, file).map(Some)
    }

    /// Opens the copy under `data_dir`; without one, fetches `archive` there and unpacks it.
    ///
    /// The archive is checked by size and sha256 before anything is unpacked, and removed once it is. One process at a time does
    /// all of it; others are told that it is [`Error::Busy`].
    #[cfg(feature = "download")]
    pub(in crate::datasets) fn open_or_download(
        &self,
        data_dir: &Path,
        archive: &Download<'_>,
        options: &Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Splits<InMemory>> {
        if let Some(splits) = self.open_cached(data_dir)? {
            return Ok(splits);
        }
        std::fs::create_dir_all(data_dir).map_err(Error::io("create", data_dir))?;
        let _lock = lock_folder(data_dir, self.folder)?;
        // Another process may have made it before the lock was ours.
        if let Some(splits) = self.open_cached(data_dir)? {
            return Ok(splits);
        }
        let fetched = archive.fetch(data_dir, options, progress)?;
        let folder = data_dir.join(self.folder);
        crate::archive::extract(&fetched, &self.expected_entries(), &folder)?;
        if let Err(error) = std::fs::remove_file(&fetched) {
            tracing::warn!(path = %fetched.display(), %error, "cannot remove the archive after unpacking it");
        }
        let missing = || Error::Io {
            action: "open",
            path: folder.clone(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        self.open_cached(data_dir)?.ok_or_else(missing)
    }
}
