//! `.tar.gz` archives, read for a known list of files only.
//!
//! An entry that is not expected, an absolute path, a `..`, a link or a device is refused, not skipped. What an archive
//! unpacks to is bounded by the sizes that are expected, so a bomb ends early.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use flate2::read::GzDecoder;
use tar::EntryType;

use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::manifest::{self, Manifest};

/// What headers, padding and folders may add to the expected files, once unpacked.
const OVERHEAD_BYTES: u64 = 1 << 20;

/// A file that an archive may hold.
#[derive(Clone, Debug)]
pub struct Expected {
    name: String,
    max_size: u64,
    exact: bool,
}

impl Expected {
    /// A file that must be there with exactly `size` bytes; `name` is its path in the archive, with `/`.
    pub fn exactly(name: impl Into<String>, size: u64) -> Self {
        Self {
            name: name.into(),
            max_size: size,
            exact: true,
        }
    }

    /// A file that may be there, with at most `size` bytes.
    pub fn at_most(name: impl Into<String>, size: u64) -> Self {
        Self {
            name: name.into(),
            max_size: size,
            exact: false,
        }
    }
}

/// Reads the expected files of an archive into memory, by their path in the archive.
///
/// # Errors
/// [`Error::ArchiveEntry`] for an entry that is refused, [`Error::ArchiveMissing`], [`Error::Truncated`],
/// [`Error::TooLarge`], [`Error::Io`] (also for damaged gzip or tar data).
pub fn read(archive: &Path, expected: &[Expected]) -> Result<BTreeMap<String, Vec<u8>>> {
    read_from(open(archive)?, archive, expected)
}

/// Reads the expected files of an archive's bytes into memory, by their path in the archive; `archive` is for errors.
///
/// # Errors
/// Those of [`read`].
pub fn read_from(bytes: impl Read, archive: &Path, expected: &[Expected]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    visit(bytes, archive, expected, |name, bytes| {
        files.insert(name.to_owned(), bytes);
        Ok(())
    })?;
    Ok(files)
}

fn open(archive: &Path) -> Result<BufReader<File>> {
    File::open(archive)
        .map(BufReader::new)
        .map_err(Error::io("open", archive))
}

/// Extracts the expected files of an archive into the folder `destination`, which must not exist yet.
///
/// The files must lie in one folder of the archive, which becomes `destination`. They go into a staging folder beside it
/// first, are synced, and get a manifest; then the staging folder is renamed. So `destination` is either absent or whole.
/// The staging folder is always the same: whoever calls this sees to it that only one process does at a time.
///
/// # Errors
/// Those of [`read`]; [`Error::Unverified`] if `destination` exists; [`Error::Io`].
pub fn extract(archive: &Path, expected: &[Expected], destination: &Path) -> Result<()> {
    if destination.symlink_metadata().is_ok() {
        return Err(Error::Unverified {
            path: destination.to_path_buf(),
        });
    }
    let parent = destination
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let staging = tempdir_beside(destination, parent)?;
    let extracted = extract_into(archive, expected, &staging)
        .and_then(|()| fs::rename(&staging, destination).map_err(Error::io("rename", &staging)))
        .and_then(|()| sync_folder(parent));
    if extracted.is_err() {
        // The first error is the one to report; a staging folder that stays is removed by the next attempt.
        let _ = fs::remove_dir_all(&staging);
    }
    extracted
}

/// A fresh staging folder; one that a killed process left is removed.
fn tempdir_beside(destination: &Path, parent: &Path) -> Result<std::path::PathBuf> {
    let name = destination.file_name().unwrap_or_default().to_string_lossy();
    let staging = parent.join(format!(".{name}.staging"));
    match fs::remove_dir_all(&staging) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", &staging)(e)),
        _ => {}
    }
    fs::create_dir(&staging).map_err(Error::io("create", &staging))?;
    Ok(staging)
}

fn extract_into(archive: &Path, expected: &[Expected], staging: &Path) -> Result<()> {
    let mut manifest = Manifest::default();
    visit(open(archive)?, archive, expected, |name, bytes| {
        let file = name.rsplit('/').next().unwrap_or(name);
        manifest.add(file, Fingerprint::of(&bytes), bytes.len() as u64);
        write_synced(&staging.join(file), &bytes)
    })?;
    write_synced(&staging.join(manifest::NAME), manifest.text().as_bytes())?;
    sync_folder(staging)
}

pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create_new(path).map_err(Error::io("create", path))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write", path))
}

pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    // Only Unix can open a folder to sync it.
    if cfg!(unix) {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(Error::io("sync", folder))?;
    }
    Ok(())
}

/// The folder that a `.tar.gz` archive's first entry lies in, or is; none if there is none but the archive's own root.
///
/// # Errors
/// [`Error::Io`], [`Error::ArchiveEntry`].
pub(crate) fn first_folder(archive: &Path) -> Result<Option<String>> {
    let damaged = |e| Error::io("unpack", archive)(e);
    let mut tar = tar::Archive::new(GzDecoder::new(open(archive)?).take(OVERHEAD_BYTES));
    for entry in tar.entries().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let raw = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = safe_name(&raw).map_err(|reason| Error::ArchiveEntry {
            path: archive.to_path_buf(),
            entry: raw.clone(),
            reason,
        })?;
        if !name.is_empty() && entry.header().entry_type() != EntryType::XGlobalHeader {
            return Ok(name.split('/').next().map(str::to_owned));
        }
    }
    Ok(None)
}

/// Calls `file` with the path and the bytes of each expected file.
fn visit(
    bytes: impl Read,
    archive: &Path,
    expected: &[Expected],
    mut file: impl FnMut(&str, Vec<u8>) -> Result<()>,
) -> Result<()> {
    let damaged = |e| Error::io("unpack", archive)(e);
    let limit = expected.iter().map(|e| e.max_size).sum::<u64>() + OVERHEAD_BYTES;
    let mut tar = tar::Archive::new(GzDecoder::new(bytes).take(limit));
    let mut seen = BTreeSet::new();
    for entry in tar.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let raw = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refuse = |reason| Error::ArchiveEntry {
            path: archive.to_path_buf(),
            entry: raw.clone(),
            reason,
        };
        let name = safe_name(&raw).map_err(refuse)?;
        match entry.header().entry_type() {
            // A global header, as `git archive` writes, is of no file; `tar` of `.` begins with the archive's own root.
            EntryType::XGlobalHeader => continue,
            EntryType::Directory if name.is_empty() => continue,
            EntryType::Directory if expected.iter().any(|e| e.name.starts_with(&format!("{name}/"))) => continue,
            EntryType::Directory => return Err(refuse("a folder that is not expected")),
            EntryType::Regular => {}
            EntryType::Link | EntryType::Symlink => return Err(refuse("a link")),
            EntryType::Char | EntryType::Block | EntryType::Fifo => return Err(refuse("a device")),
            _ => return Err(refuse("an entry of a kind that is not expected")),
        }
        let Some(want) = expected.iter().find(|e| e.name == name) else {
            return Err(refuse("a file that is not expected"));
        };
        if !seen.insert(name.clone()) {
            return Err(refuse("a second time"));
        }
        let size = entry.size();
        let path = || archive.join(&name);
        if size > want.max_size {
            let what = "the size of an entry";
            return Err(Error::TooLarge {
                path: path(),
                what,
                limit: want.max_size,
                got: size,
            });
        }
        let mut bytes = Vec::new();
        match entry.read_to_end(&mut bytes) {
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(damaged(e)),
            _ => {}
        }
        let (got, needed) = (bytes.len() as u64, if want.exact { want.max_size } else { size });
        if got < needed {
            return Err(Error::Truncated {
                path: path(),
                expected: needed,
                got,
            });
        }
        file(&name, bytes)?;
    }
    if let Some(missing) = expected.iter().find(|e| e.exact && !seen.contains(&e.name)) {
        return Err(Error::ArchiveMissing {
            path: archive.to_path_buf(),
            entry: missing.name.clone(),
        });
    }
    // Reading to the end checks gzip's own checksum.
    let mut rest = tar.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(damaged)?;
    if rest.limit() == 0 {
        let what = "the number of bytes that it unpacks to, at least,";
        return Err(Error::TooLarge {
            path: archive.to_path_buf(),
            what,
            limit: limit - 1,
            got: limit,
        });
    }
    Ok(())
}

/// The entry's path without `.` parts and a last `/`; or why it is refused.
pub(crate) fn safe_name(raw: &str) -> std::result::Result<String, &'static str> {
    if raw.starts_with('/') || raw.contains('\\') || raw.as_bytes().get(1) == Some(&b':') {
        return Err("an absolute path");
    }
    let parts: Vec<&str> = raw.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err("a path that leaves its folder");
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests;
