//! The copy of CIFAR-10 that this program keeps: a folder that a manifest marks as complete, or a verified download.

use std::path::Path;

use super::{FILE_BYTES, FOLDER, TEST_FILES, TRAIN_FILES, check_size, from_batches};
use crate::datasets::{InMemory, Splits};
use crate::error::{Error, Result};
use crate::manifest::Manifest;

#[cfg(feature = "download")]
use crate::download::{Download, Options, Progress};

/// The official archive. The sha256 is the one that several projects pin for it.
#[cfg(feature = "download")]
pub const ARCHIVE: Download<'_> = Download {
    urls: &["https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"],
    file_name: super::ARCHIVE_NAME,
    size: 170_052_171,
    sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
};

/// Opens the copy in `data_dir/cifar-10-batches-bin`, if it is there and complete.
///
/// Every file is compared with the manifest that was written when the copy was made; a folder without a manifest is not
/// trusted.
///
/// # Errors
/// [`Error::Unverified`] for a folder without a manifest; [`Error::ChecksumMismatch`] or [`Error::Truncated`] for a file
/// that changed since; [`Error::Io`].
pub fn open_cached(data_dir: &Path) -> Result<Option<Splits<InMemory>>> {
    let folder = data_dir.join(FOLDER);
    if !folder.exists() {
        return Ok(None);
    }
    let _span = tracing::info_span!("load", source = %folder.display()).entered();
    let Some(manifest) = Manifest::read(&folder)? else {
        return Err(Error::Unverified { path: folder });
    };
    let read = |name: &&str| -> Result<Vec<u8>> {
        let path = folder.join(name);
        check_size(&path, std::fs::metadata(&path).map_err(Error::io("read", &path))?.len())?;
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        check_size(&path, bytes.len() as u64)?;
        manifest.check(name, &bytes, &path)?;
        Ok(bytes)
    };
    let train = TRAIN_FILES.iter().map(read).collect::<Result<_>>()?;
    let test = TEST_FILES.iter().map(read).collect::<Result<_>>()?;
    debug_assert_eq!(FILE_BYTES, 30_730_000);
    from_batches(&folder, train, test).map(Some)
}

/// Opens the copy under `data_dir`; without one, fetches `archive` (normally [`ARCHIVE`]) there and unpacks it.
///
/// The archive is checked by size and sha256 before anything is unpacked, and removed once it is. Calls `progress` as bytes
/// arrive.
///
/// # Errors
/// Those of [`open_cached`], of [`Download::fetch`] and of [`crate::archive::extract`].
#[cfg(feature = "download")]
pub fn open_or_download(
    data_dir: &Path,
    archive: &Download<'_>,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Splits<InMemory>> {
    if let Some(splits) = open_cached(data_dir)? {
        return Ok(splits);
    }
    std::fs::create_dir_all(data_dir).map_err(Error::io("create", data_dir))?;
    let fetched = archive.fetch(data_dir, options, progress)?;
    let folder = data_dir.join(FOLDER);
    // Another process may have been faster while this one waited or fetched.
    if !folder.exists() {
        crate::archive::extract(&fetched, &super::expected_entries(), &folder)?;
    }
    if let Err(error) = std::fs::remove_file(&fetched) {
        tracing::warn!(path = %fetched.display(), %error, "cannot remove the archive after unpacking it");
    }
    let missing = || Error::Io {
        action: "open",
        path: folder.clone(),
        source: std::io::ErrorKind::NotFound.into(),
    };
    open_cached(data_dir)?.ok_or_else(missing)
}
