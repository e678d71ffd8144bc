//! `ImageFolder`: one folder a class, with images in it at any depth.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::image_files::{self, ImageFiles};
use super::{Dataset, Opened, Splits};
use crate::decode::{self, Choose};
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::pixels::Image;

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

#[derive(Clone, Debug)]
struct Entry {
    path: PathBuf,
    bytes: u64,
    label: u32,
}

/// Images in `root/<class>/**`, decoded when asked for.
///
/// The classes are the folders' names in byte order, and the files of a class are in the order of torchvision's
/// `ImageFolder` (folders in byte order, then names in byte order). So the indices are the same on every machine.
#[derive(Clone, Debug)]
pub struct ImageFolder {
    root: PathBuf,
    classes: Vec<String>,
    files: Vec<Entry>,
    skipped: Skipped,
}

impl ImageFolder {
    /// Opens `root`, which holds one folder a class.
    ///
    /// Names that start with a dot, files that are no images, and links back into a folder above are skipped, counted
    /// ([`Self::skipped`]) and reported by a warning. Names that are not UTF-8 are kept as they are for reading; a class's
    /// name is shown with replacement characters.
    ///
    /// # Errors
    /// [`Error::EmptySplit`] without class folders, [`Error::EmptyClass`], [`Error::AmbiguousClass`], [`Error::Io`].
    pub fn open(root: &Path) -> Result<Self> {
        let _span = tracing::info_span!("index", root = %root.display()).entered();
        let mut this = Self {
            root: root.to_path_buf(),
            classes: Vec::new(),
            files: Vec::new(),
            skipped: Skipped::default(),
        };
        for entry in sorted_entries(root)? {
            if is_dotfile(&entry) {
                this.skipped.dotfiles += 1;
            } else if !entry.is_dir() {
                this.skipped.non_images += 1;
            } else {
                let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if this.classes.contains(&name) {
                    return Err(Error::AmbiguousClass {
                        path: root.to_path_buf(),
                        name,
                    });
                }
                this.classes.push(name);
                this.add_class(&entry)?;
            }
        }
        if this.files.is_empty() {
            return Err(Error::EmptySplit {
                path: root.to_path_buf(),
            });
        }
        if this.skipped != Skipped::default() {
            let Skipped {
                dotfiles,
                non_images,
                loops,
            } = this.skipped;
            tracing::warn!(root = %root.display(), dotfiles, non_images, loops, "skipped files that are no images");
        }
        Ok(this)
    }

    /// Opens `root/train` with `root/test`, `root/val` or both, which must have the same classes; else `root` itself, as one
    /// whole. Without a `test` folder, `val` is the test split.
    ///
    /// # Errors
    /// Those of [`Self::open`], and [`Error::ClassMismatch`].
    pub fn open_any(root: &Path) -> Result<Opened<Self>> {
        let split = |name: &str| Self::open(&root.join(name)).map(Arc::new);
        let there = |name: &str| root.join(name).is_dir();
        let opened = match (there("train"), there("val"), there("test")) {
            (true, val, true) => Opened::Splits(Splits {
                train: split("train")?,
                val: if val { Some(split("val")?) } else { None },
                test: split("test")?,
            }),
            (true, true, false) => Opened::Splits(Splits {
                train: split("train")?,
                val: None,
                test: split("val")?,
            }),
            _ => Opened::Whole(Arc::new(Self::open(root)?)),
        };
        opened.checked()
    }

    /// Opens the splits of [`Self::open_any`].
    ///
    /// # Errors
    /// Those of [`Self::open_any`], and [`Error::NoSplits`].
    pub fn open_splits(root: &Path) -> Result<Splits<Self>> {
        Self::open_any(root)?.splits(root)
    }

    /// Whether `root` has a `train` folder and one to evaluate on.
    pub fn is_splits(root: &Path) -> bool {
        root.join("train").is_dir() && (root.join("test").is_dir() || root.join("val").is_dir())
    }

    /// Whether `root` has a folder with something in it that may be an image, so that it may be one of class folders.
    pub(super) fn has_classes(root: &Path) -> bool {
        let holds_image = |folder: PathBuf| {
            let files = sorted_entries(&folder).unwrap_or_default();
            files.iter().any(|file| file.is_file() && has_image_extension(file))
        };
        let folders = sorted_entries(root).unwrap_or_default();
        folders.into_iter().any(|folder| folder.is_dir() && holds_image(folder))
    }

    /// The folder of the class folders.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A sample's file.
    ///
    /// # Panics
    /// If `index >= len()`.
    pub fn path(&self, index: usize) -> &Path {
        &self.files[index].path
    }

    /// What was left out.
    pub fn skipped(&self) -> Skipped {
        self.skipped
    }

    fn add_class(&mut self, folder: &Path) -> Result<()> {
        let label = (self.classes.len() - 1) as u32;
        let mut folders = Vec::new();
        self.find_folders(folder, &mut BTreeSet::new(), &mut folders)?;
        folders.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
        let before = self.files.len();
        for folder in folders {
            for path in sorted_entries(&folder)? {
                if path.is_dir() {
                    continue;
                }
                if is_dotfile(&path) {
                    self.skipped.dotfiles += 1;
                } else if has_image_extension(&path) || starts_like_an_image(&path)? {
                    let bytes = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
                    self.files.push(Entry { path, bytes, label });
                } else {
                    self.skipped.non_images += 1;
                }
            }
        }
        if self.files.len() == before {
            return Err(Error::EmptyClass {
                path: folder.to_path_buf(),
            });
        }
        Ok(())
    }

    /// `folder` and all folders below it; `above` are the real paths of the folders that it lies in.
    fn find_folders(&mut self, folder: &Path, above: &mut BTreeSet<PathBuf>, found: &mut Vec<PathBuf>) -> Result<()> {
        let real = folder.canonicalize().map_err(Error::io("read", folder))?;
        if !above.insert(real.clone()) {
            self.skipped.loops += 1;
            return Ok(());
        }
        found.push(folder.to_path_buf());
        for entry in sorted_entries(folder)? {
            if entry.is_dir() {
                if is_dotfile(&entry) {
                    self.skipped.dotfiles += 1;
                } else {
                    self.find_folders(&entry, above, found)?;
                }
            }
        }
        above.remove(&real);
        Ok(())
    }
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> u32 {
        self.files[index].label
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        self.image_part(index, &mut |_, _| None)
    }

    fn image_part(&self, index: usize, choose: Choose<'_>) -> Result<Image<'_>> {
        decode::decode_part(&self.read(index)?, &self.files[index].path, choose)
    }

    fn describe(&self) -> String {
        self.root.display().to_string()
    }

    fn describe_sample(&self, index: usize) -> String {
        self.path(index).display().to_string()
    }

    /// Over class names, labels, and each file's path below the root and its size.
    fn fingerprint(&self) -> Result<Fingerprint> {
        let below = |path: &'_ Path| path.strip_prefix(&self.root).unwrap_or(path).to_path_buf();
        let names: Vec<PathBuf> = self.files.iter().map(|file| below(&file.path)).collect();
        let files = self.files.iter().zip(&names);
        let files = files.map(|(file, name)| (file.label, name.as_os_str().as_encoded_bytes(), file.bytes));
        Ok(image_files::fingerprint(&self.classes, files))
    }
}

impl ImageFiles for ImageFolder {
    fn path(&self, index: usize) -> PathBuf {
        self.files[index].path.clone()
    }

    fn read(&self, index: usize) -> Result<Vec<u8>> {
        let file = &self.files[index];
        read_unchanged(&file.path, file.bytes)
    }
}

/// Reads a file that had `expected` bytes when its data set was opened.
pub(super) fn read_unchanged(path: &Path, expected: u64) -> Result<Vec<u8>> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let got = bytes.len() as u64;
    if got != expected {
        return Err(Error::Changed {
            path: path.to_path_buf(),
            expected,
            got,
        });
    }
    Ok(bytes)
}

/// A folder's entries, in the byte order of their names.
fn sorted_entries(folder: &Path) -> Result<Vec<PathBuf>> {
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
