//! `ImageFolder`: one folder a class, with images in it at any depth.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::image_files::{self, ImageFiles};
use super::image_walk::{folders_in, images_below, is_dotfile, is_image, leads_above, sorted_entries};
use super::skipped::{SkipReason, Skipped, describe_skipped};
use super::{Dataset, Opened, Splits, split_names};
use crate::decode::{self, Choose};
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::pixels::Image;

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
    skipped: Vec<Skipped>,
}

impl ImageFolder {
    /// Opens `root`, which holds one folder a class.
    ///
    /// Names that start with a dot, files that are no images, images beside the class folders, and links back into a folder
    /// above, also above `root`, are skipped, kept for [`ImageFiles::skipped`] and reported by a warning. Names that are not UTF-8
    /// are kept as they are for reading; a class's name is shown with replacement characters.
    ///
    /// # Errors
    /// [`Error::EmptySplit`] without class folders, [`Error::EmptyClass`], [`Error::AmbiguousClass`], [`Error::Io`].
    pub fn open(root: &Path) -> Result<Self> {
        let _span = tracing::info_span!("index", root = %root.display()).entered();
        let mut this = Self {
            root: root.to_path_buf(),
            classes: Vec::new(),
            files: Vec::new(),
            skipped: Vec::new(),
        };
        for entry in sorted_entries(root)? {
            let reason = if is_dotfile(&entry) {
                SkipReason::Dotfile
            } else if is_image(&entry) {
                SkipReason::NoClass
            } else if !entry.is_dir() {
                SkipReason::NotAnImage
            } else if leads_above(&entry)? {
                SkipReason::Loop
            } else {
                let name = name_of(&entry);
                if this.classes.contains(&name) {
                    return Err(Error::AmbiguousClass {
                        path: root.to_path_buf(),
                        name,
                    });
                }
                this.classes.push(name);
                this.add_class(&entry)?;
                continue;
            };
            this.skipped.push(Skipped { path: entry, reason });
        }
        if this.files.is_empty() {
            return Err(Error::EmptySplit {
                path: root.to_path_buf(),
            });
        }
        if !this.skipped.is_empty() {
            tracing::warn!("{}: left out {}", root.display(), describe_skipped(&this.skipped));
        }
        Ok(this)
    }

    /// Opens `root/train` with `root/test`, `root/val` or both, which must have the same classes; else `root` itself, as one
    /// whole. Without a `test` folder, `val` is the test split.
    ///
    /// What lies beside the folders of the splits is left out, and among what the training split has skipped.
    ///
    /// # Errors
    /// Those of [`Self::open`], [`Error::ClassMismatch`], [`Error::SplitsNotClasses`] if the folders of a whole are named
    /// like splits, and [`Error::UnknownSplit`] if others than those of the splits are.
    pub fn open_any(root: &Path) -> Result<Opened<Self>> {
        let split = |name: &str| Self::open(&root.join(name)).map(Arc::new);
        let train = || -> Result<Arc<Self>> {
            let beside = beside_splits(root)?;
            if !beside.is_empty() {
                tracing::warn!("{}: left out {}", root.display(), describe_skipped(&beside));
            }
            let mut train = Self::open(&root.join("train"))?;
            train.skipped.extend(beside);
            Ok(Arc::new(train))
        };
        let there = |name: &str| root.join(name).is_dir();
        let opened = match (there("train"), there("val"), there("test")) {
            (true, val, true) => Opened::Splits(Splits {
                train: train()?,
                val: if val { Some(split("val")?) } else { None },
                test: split("test")?,
            }),
            (true, true, false) => Opened::Splits(Splits {
                train: train()?,
                val: None,
                test: split("val")?,
            }),
            _ => {
                let classes: Vec<String> = folders_in(root)?.iter().map(|folder| name_of(folder)).collect();
                // A class folder that cannot be listed is an error of `open`.
                let entries_of = |class: &str| sorted_entries(&root.join(class)).unwrap_or_default();
                split_names::refuse_as_classes(root, &classes, |class| {
                    let entries = entries_of(class).into_iter();
                    // By name first, as there may be a million pictures to ask what they are.
                    let splits = entries.filter(|entry| split_names::is_one(&name_of(entry)) && entry.is_dir());
                    splits.map(|folder| name_of(&folder)).collect()
                })?;
                Opened::Whole(Arc::new(Self::open(root)?))
            }
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

    fn add_class(&mut self, folder: &Path) -> Result<()> {
        let label = (self.classes.len() - 1) as u32;
        let paths = images_below(folder, &mut self.skipped)?;
        if paths.is_empty() {
            return Err(Error::EmptyClass {
                path: folder.to_path_buf(),
            });
        }
        for path in paths {
            let bytes = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
            self.files.push(Entry { path, bytes, label });
        }
        Ok(())
    }
}

/// What lies in `root` beside the folders of the splits.
fn beside_splits(root: &Path) -> Result<Vec<Skipped>> {
    let entries = sorted_entries(root)?;
    let names: Vec<String> = entries.iter().map(|entry| name_of(entry)).collect();
    let is_split = |entry: &Path, name: &str| {
        // Where case does not count, `train` may be listed as `Train`.
        let named = |split: &&str| {
            name == *split
                || (name.eq_ignore_ascii_case(split) && !names.iter().any(|n| n == split) && root.join(split).is_dir())
        };
        entry.is_dir() && split_names::READ.iter().any(named)
    };
    let beside: Vec<(PathBuf, &String)> = entries
        .into_iter()
        .zip(&names)
        .filter(|(entry, name)| !is_split(entry, name))
        .collect();
    let folders = beside.iter().filter(|(entry, _)| entry.is_dir());
    split_names::refuse_beside_splits(root, folders.map(|(_, name)| name.as_str()))?;
    let skipped = beside.into_iter().map(|(path, _)| {
        let reason = if is_dotfile(&path) {
            SkipReason::Dotfile
        } else if path.is_dir() {
            SkipReason::NoSplit
        } else if is_image(&path) {
            SkipReason::NoClass
        } else {
            SkipReason::NotAnImage
        };
        Skipped { path, reason }
    });
    Ok(skipped.collect())
}

/// The name at the end of a path, as text.
fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
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

    fn content(&self, index: usize) -> Result<Option<Fingerprint>> {
        Ok(Some(Fingerprint::of(&self.read(index)?)))
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

    fn skipped(&self) -> &[Skipped] {
        &self.skipped
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
