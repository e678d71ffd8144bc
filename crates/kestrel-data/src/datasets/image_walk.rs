//! The image files below a folder, in the order of torchvision's `ImageFolder`; not which class they are of.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::skipped::{SkipReason, Skipped};
use crate::decode;
use crate::error::{Error, Result};

/// The endings that torchvision's `ImageFolder` takes for images, and GIF's. A file with one of them is never skipped: if it cannot be
/// decoded, that is an error.
const EXTENSIONS: [&str; 10] = ["gif", "jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"];

/// How many files and folders are looked at to find out whether there are images in a tree.
const MOST_ENTRIES: usize = 100_000;

/// The images in `folder` and in the folders below it: folders in byte order, then names in byte order.
///
/// Names that start with a dot, files that are no images, and links back into a folder above, also above `folder`, are left
/// out and added to `skipped`.
///
/// # Errors
/// [`Error::Io`].
pub fn images_below(folder: &Path, skipped: &mut Vec<Skipped>) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    find_folders(folder, &mut folders_above(folder)?, &mut folders, skipped)?;
    folders.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    let mut images = Vec::new();
    for folder in folders {
        for path in sorted_entries(&folder)? {
            if path.is_dir() {
                continue;
            }
            let reason = if is_dotfile(&path) {
                SkipReason::Dotfile
            } else if has_image_extension(&path) || starts_like_an_image(&path)? {
                images.push(path);
                continue;
            } else {
                SkipReason::NotAnImage
            };
            skipped.push(Skipped { path, reason });
        }
    }
    Ok(images)
}

/// The real paths of the folders that `folder` lies in: those of its path, and where that leads by links, those of the place
/// itself. Not its own.
fn folders_above(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut above = BTreeSet::new();
    let absolute = std::path::absolute(folder).map_err(Error::io("read", folder))?;
    let mut at = absolute.as_path();
    above.extend(real(at)?.ancestors().skip(1).map(Path::to_path_buf));
    // What stands before `..` is no folder above.
    while at.components().next_back() != Some(Component::ParentDir)
        && let Some(parent) = at.parent()
    {
        above.extend(real(parent)?.ancestors().map(Path::to_path_buf));
        at = parent;
    }
    Ok(above)
}

fn real(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(Error::io("read", path))
}

/// Whether `folder` is a link to a folder that it lies in.
pub(super) fn leads_above(folder: &Path) -> Result<bool> {
    Ok(folders_above(folder)?.contains(&real(folder)?))
}

/// The folders in `folder` whose names do not start with a dot.
pub(super) fn folders_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = sorted_entries(folder)?.into_iter();
    Ok(entries.filter(|entry| !is_dotfile(entry) && entry.is_dir()).collect())
}

/// Whether there is an image in one of the folders in `root`, at any depth, as far as [`MOST_ENTRIES`] tell.
pub(super) fn has_images_in_folders(root: &Path) -> bool {
    // The nearest folders first: a tree that is no data set is not searched to the bottom of its first folder.
    let mut folders = VecDeque::from(folders_in(root).unwrap_or_default());
    let mut left = MOST_ENTRIES;
    while let Some(folder) = folders.pop_front() {
        for entry in sorted_entries(&folder).unwrap_or_default() {
            if left == 0 {
                return false;
            }
            left -= 1;
            if is_dotfile(&entry) {
                continue;
            }
            if entry.is_dir() {
                folders.push_back(entry);
            } else if is_image(&entry) {
                return true;
            }
        }
    }
    false
}

/// `folder` and all folders below it; `above` are the real paths of the folders that it lies in.
fn find_folders(
    folder: &Path,
    above: &mut BTreeSet<PathBuf>,
    found: &mut Vec<PathBuf>,
    skipped: &mut Vec<Skipped>,
) -> Result<()> {
    let real = real(folder)?;
    if !above.insert(real.clone()) {
        skipped.push(Skipped {
            path: folder.to_path_buf(),
            reason: SkipReason::Loop,
        });
        return Ok(());
    }
    found.push(folder.to_path_buf());
    for entry in sorted_entries(folder)? {
        if entry.is_dir() {
            if is_dotfile(&entry) {
                skipped.push(Skipped {
                    path: entry,
                    reason: SkipReason::Dotfile,
                });
            } else {
                find_folders(&entry, above, found, skipped)?;
            }
        }
    }
    above.remove(&real);
    Ok(())
}

/// A folder's entries, in the byte order of their names.
pub(super) fn sorted_entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(Error::io("list", folder))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|e| e.path()))
        .collect::<std::io::Result<_>>()
        .map_err(Error::io("list", folder))?;
    paths.sort_by(|a, b| name_bytes(a).cmp(name_bytes(b)));
    Ok(paths)
}

fn name_bytes(path: &Path) -> &[u8] {
    path.file_name().map_or(&[], OsStr::as_encoded_bytes)
}

pub(super) fn is_dotfile(path: &Path) -> bool {
    name_bytes(path).starts_with(b".")
}

pub(super) fn has_image_extension(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| EXTENSIONS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// Whether there is an image, by its ending or by its first bytes. What cannot be read is none.
pub(super) fn is_image(path: &Path) -> bool {
    path.is_file() && (has_image_extension(path) || starts_like_an_image(path).unwrap_or(false))
}

fn starts_like_an_image(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(Error::io("open", path))?;
    file.take(decode::SNIFF_BYTES as u64)
        .read_to_end(&mut start)
        .map_err(Error::io("read", path))?;
    Ok(decode::Format::sniff(&start).is_some())
}
