//! The image files below a folder, in the order of torchvision's `ImageFolder`; not which class they are of.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::decode;
use crate::error::{Error, Result};

/// The endings that torchvision's `ImageFolder` takes for images, and GIF's. A file with one of them is never skipped: if it cannot be
/// decoded, that is an error.
const EXTENSIONS: [&str; 10] = ["gif", "jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"];

/// What was left out when a folder was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Files and folders whose name starts with a dot.
    pub dotfiles: usize,
    /// Files that are no images, by their ending and by their first bytes.
    pub non_images: usize,
    /// Links to a folder that they lie in.
    pub loops: usize,
}

/// The images in `folder` and in the folders below it: folders in byte order, then names in byte order.
///
/// Names that start with a dot, files that are no images, and links back into a folder above are left out and counted.
///
/// # Errors
/// [`Error::Io`].
pub fn images_below(folder: &Path, skipped: &mut Skipped) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    find_folders(folder, &mut BTreeSet::new(), &mut folders, skipped)?;
    folders.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    let mut images = Vec::new();
    for folder in folders {
        for path in sorted_entries(&folder)? {
            if path.is_dir() {
                continue;
            }
            if is_dotfile(&path) {
                skipped.dotfiles += 1;
            } else if has_image_extension(&path) || starts_like_an_image(&path)? {
                images.push(path);
            } else {
                skipped.non_images += 1;
            }
        }
    }
    Ok(images)
}

/// `folder` and all folders below it; `above` are the real paths of the folders that it lies in.
fn find_folders(
    folder: &Path,
    above: &mut BTreeSet<PathBuf>,
    found: &mut Vec<PathBuf>,
    skipped: &mut Skipped,
) -> Result<()> {
    let real = folder.canonicalize().map_err(Error::io("read", folder))?;
    if !above.insert(real.clone()) {
        skipped.loops += 1;
        return Ok(());
    }
    found.push(folder.to_path_buf());
    for entry in sorted_entries(folder)? {
        if entry.is_dir() {
            if is_dotfile(&entry) {
                skipped.dotfiles += 1;
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

fn starts_like_an_image(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(Error::io("open", path))?;
    file.take(decode::SNIFF_BYTES as u64)
        .read_to_end(&mut start)
        .map_err(Error::io("read", path))?;
    Ok(decode::Format::sniff(&start).is_some())
}
