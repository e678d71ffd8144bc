//! `ImageTar`: image folders straight out of a `.tar`, without unpacking it.
//!
//! The archive is indexed once and then read by position. Absolute paths, `..`, links and devices are refused, as they are when
//! an archive is unpacked. An archive without its end mark is cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tar::EntryType;

use super::image_files::{self, ImageFiles};
use super::image_walk::{has_image_extension, is_dotfile};
use super::skipped::{SkipReason, Skipped, describe_skipped};
use super::{Dataset, Opened, Splits, split_names};
use crate::archive::safe_name;
use crate::decode::{self, Choose};
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::pixels::Image;

/// The unit of tar files.
const BLOCK: u64 = 512;

/// An image within the archive.
#[derive(Clone, Debug)]
struct Entry {
    /// Its path in the archive.
    name: String,
    offset: u64,
    bytes: u64,
    label: u32,
}

/// Images of `<class>/**` of a tar archive, decoded when asked for; classes and order are those of an image folder.
#[derive(Clone, Debug)]
pub struct ImageTar {
    archive: PathBuf,
    /// The folder within the archive that holds the class folders.
    root: String,
    file: Arc<File>,
    archive_bytes: u64,
    classes: Vec<String>,
    files: Vec<Entry>,
    skipped: Arc<[Skipped]>,
}

/// What an archive holds, before it is known which folders are classes.
struct Index {
    file: Arc<File>,
    bytes: u64,
    /// Name, offset and bytes of each image, by the parts of its path.
    images: BTreeMap<Vec<String>, (u64, u64)>,
    skipped: Vec<Skipped>,
}

impl ImageTar {
    /// Opens a tar archive that holds class folders, or `train`, `val` and `test` folders of them; the folder that all of it
    /// may lie in is passed over. Images beside the class folders are left out, as are dotfiles, files that are no images, and
    /// folders of images beside those of the splits: all are kept for [`ImageFiles::skipped`] and reported by a warning.
    ///
    /// # Errors
    /// [`Error::ArchiveEntry`] for an entry that is refused, [`Error::Truncated`], [`Error::EmptySplit`],
    /// [`Error::SplitsNotClasses`] and [`Error::UnknownSplit`] as of [`super::ImageFolder::open_any`]; [`Error::EmptyClass`] is no error here, as a tar
    /// need not list folders; [`Error::ClassMismatch`], [`Error::Io`].
    pub fn open(archive: &Path) -> Result<Opened<Self>> {
        let _span = tracing::info_span!("index", archive = %archive.display()).entered();
        let mut index = Index::read(archive)?;
        let root = index.common_folder();
        let depth = root.iter().len();
        index.leave_out(archive, |parts| parts.len() < depth + 2);
        let splits = split_names::READ.map(|split| {
            let inside = |parts: &&Vec<String>| parts.get(depth).is_some_and(|part| part == split);
            index.images.keys().any(|parts| inside(&parts))
        });
        let has_splits = matches!(splits, [true, _, true] | [true, true, _]);
        if has_splits {
            let place = root
                .iter()
                .fold(archive.to_path_buf(), |place, folder| place.join(folder));
            index.leave_out_beside_splits(&place, depth)?;
            // The class folders lie in the splits'.
            index.leave_out(archive, |parts| parts.len() < depth + 3);
        }
        if !index.skipped.is_empty() {
            tracing::warn!("{}: left out {}", archive.display(), describe_skipped(&index.skipped));
        }
        let skipped: Arc<[Skipped]> = std::mem::take(&mut index.skipped).into();
        let prefix: Vec<String> = root.into_iter().collect();
        let split = |name: &str| -> Result<Arc<Self>> {
            let root = [prefix.as_slice(), &[name.to_owned()]].concat();
            Ok(Arc::new(index.below(archive, &root, &skipped)?))
        };
        Ok(match splits {
            [true, true, true] => Opened::Splits(Splits {
                train: split("train")?,
                val: Some(split("val")?),
                test: split("test")?,
            }),
            [true, false, true] => Opened::Splits(Splits {
                train: split("train")?,
                val: None,
                test: split("test")?,
            }),
            [true, true, false] => Opened::Splits(Splits {
                train: split("train")?,
                val: None,
                test: split("val")?,
            }),
            _ => {
                let place = archive.join(prefix.join("/"));
                split_names::refuse_as_classes(&place, &index.folders_in(&prefix), |class| {
                    index.folders_in(&[prefix.as_slice(), &[class.to_owned()]].concat())
                })?;
                Opened::Whole(Arc::new(index.below(archive, &prefix, &skipped)?))
            }
        })
        .and_then(Opened::checked)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::FileExt;
            self.file.read_exact_at(buffer, offset)
        }
        #[cfg(not(unix))]
        {
            // A handle of its own: the position is the handle's, and threads read side by side.
            let mut file = File::open(&self.archive)?;
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(buffer)
        }
    }
}

impl Index {
    fn read(archive: &Path) -> Result<Self> {
        let damaged = |e| Error::io("read", archive)(e);
        let file = File::open(archive).map_err(Error::io("open", archive))?;
        let bytes = file.metadata().map_err(damaged)?.len();
        let mut images = BTreeMap::new();
        let mut skipped = Vec::new();
        let mut end = 0;
        let mut tar = tar::Archive::new(BufReader::new(&file));
        for entry in tar.entries_with_seek().map_err(damaged)? {
            let mut entry = entry.map_err(damaged)?;
            let raw = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let refuse = |reason| Error::ArchiveEntry {
                path: archive.to_path_buf(),
                entry: raw.clone(),
                reason,
            };
            let name = safe_name(&raw).map_err(refuse)?;
            let (offset, size) = (entry.raw_file_position(), entry.size());
            end = offset.saturating_add(size);
            if end > bytes {
                return Err(Error::Truncated {
                    path: archive.join(&name),
                    expected: size,
                    got: bytes.saturating_sub(offset),
                });
            }
            match entry.header().entry_type() {
                // A global header, as `git archive` writes, is of no file.
                EntryType::Directory | EntryType::XGlobalHeader => continue,
                EntryType::Regular | EntryType::Continuous => {}
                EntryType::Link | EntryType::Symlink => return Err(refuse("a link")),
                EntryType::Char | EntryType::Block | EntryType::Fifo => return Err(refuse("a device")),
                _ => return Err(refuse("an entry of a kind that is not expected")),
            }
            let parts: Vec<String> = name.split('/').map(str::to_owned).collect();
            let leave_out = |reason| Skipped {
                path: archive.join(&name),
                reason,
            };
            if parts.iter().any(|part| is_dotfile(Path::new(part))) {
                skipped.push(leave_out(SkipReason::Dotfile));
                continue;
            }
            let mut start = Vec::new();
            let starts = entry.by_ref().take(decode::SNIFF_BYTES as u64).read_to_end(&mut start);
            starts.map_err(damaged)?;
            if !has_image_extension(Path::new(&name)) && decode::Format::sniff(&start).is_none() {
                skipped.push(leave_out(SkipReason::NotAnImage));
            } else if images.insert(parts, (offset, size)).is_some() {
                return Err(refuse("a second time"));
            }
        }
        check_end(&file, end, bytes, archive)?;
        Ok(Self {
            file: Arc::new(file),
            bytes,
            images,
            skipped,
        })
    }

    /// The folder that all other folders lie in, if there are class folders in it.
    fn common_folder(&self) -> Option<String> {
        // An image in no folder is of no class, whichever folders are classes.
        let in_folders = || self.images.keys().filter(|parts| parts.len() >= 2);
        let first = in_folders().next()?.first()?;
        let all = in_folders().all(|parts| parts.first() == Some(first));
        let classes = in_folders().any(|parts| parts.len() >= 3);
        (all && classes).then(|| first.clone())
    }

    /// Leaves out the images of which `is_beside` says, by the parts of their paths, that they lie beside the class folders.
    fn leave_out(&mut self, archive: &Path, is_beside: impl Fn(&[String]) -> bool) {
        let beside = self.images.extract_if(.., |parts, _| is_beside(parts));
        self.skipped.extend(beside.map(|(parts, _)| Skipped {
            path: archive.join(parts.join("/")),
            reason: SkipReason::NoClass,
        }));
    }

    /// Leaves out the folders of images that lie beside those of the splits, in the folder `place` of that depth.
    fn leave_out_beside_splits(&mut self, place: &Path, depth: usize) -> Result<()> {
        let is_split = |folder: &String| split_names::READ.contains(&folder.as_str());
        let folders = self.images.keys().filter_map(|parts| parts.get(depth));
        let beside: BTreeSet<String> = folders.filter(|folder| !is_split(folder)).cloned().collect();
        split_names::refuse_beside_splits(place, beside.iter().map(String::as_str))?;
        self.images.retain(|parts, _| parts.get(depth).is_none_or(is_split));
        self.skipped.extend(beside.into_iter().map(|folder| Skipped {
            path: place.join(folder),
            reason: SkipReason::NoSplit,
        }));
        Ok(())
    }

    /// The names of the folders in the folder `root` that hold images.
    fn folders_in(&self, root: &[String]) -> Vec<String> {
        let folder = |parts: &Vec<String>| match parts.strip_prefix(root) {
            Some([folder, _, ..]) => Some(folder.clone()),
            _ => None,
        };
        let folders: BTreeSet<String> = self.images.keys().filter_map(folder).collect();
        folders.into_iter().collect()
    }

    /// The images in class folders of the folder `root`.
    fn below(&self, archive: &Path, root: &[String], skipped: &Arc<[Skipped]>) -> Result<ImageTar> {
        let mut found: Vec<(&str, &[String], String, u64, u64)> = Vec::new();
        for (parts, &(offset, bytes)) in &self.images {
            let Some([class, rest @ ..]) = parts.strip_prefix(root) else {
                continue;
            };
            found.push((class, rest, parts.join("/"), offset, bytes));
        }
        // As an image folder's: class, folder, name, each in the order of its bytes.
        let folder_and_name = |rest: &[String]| {
            let (name, folder) = rest
                .split_last()
                .map_or(("", [].as_slice()), |(name, folder)| (name.as_str(), folder));
            (folder.join("/"), name.to_owned())
        };
        found.sort_by_cached_key(|(class, rest, ..)| ((*class).to_owned(), folder_and_name(rest)));
        let mut classes: Vec<String> = Vec::new();
        let mut files = Vec::with_capacity(found.len());
        for (class, _, name, offset, bytes) in found {
            if classes.last().is_none_or(|last| last != class) {
                classes.push(class.to_owned());
            }
            let label = (classes.len() - 1) as u32;
            files.push(Entry {
                name,
                offset,
                bytes,
                label,
            });
        }
        if files.is_empty() {
            return Err(Error::EmptySplit {
                path: archive.join(root.join("/")),
            });
        }
        Ok(ImageTar {
            archive: archive.to_path_buf(),
            root: root.join("/"),
            file: Arc::clone(&self.file),
            archive_bytes: self.bytes,
            classes,
            files,
            skipped: Arc::clone(skipped),
        })
    }
}

/// An archive ends in a block of zeros; without it, whole entries may be missing.
fn check_end(mut file: &File, end: u64, bytes: u64, archive: &Path) -> Result<()> {
    let mark = end.next_multiple_of(BLOCK);
    let mut block = Vec::new();
    file.seek(SeekFrom::Start(mark))
        .and_then(|_| file.take(BLOCK).read_to_end(&mut block))
        .map_err(Error::io("read", archive))?;
    if (block.len() as u64) < BLOCK || block.iter().any(|&byte| byte != 0) {
        return Err(Error::Truncated {
            path: archive.to_path_buf(),
            expected: mark + 2 * BLOCK,
            got: bytes,
        });
    }
    Ok(())
}

impl Dataset for ImageTar {
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
        decode::decode_part(&self.read(index)?, &self.path(index), choose)
    }

    fn describe(&self) -> String {
        self.archive.join(&self.root).display().to_string()
    }

    fn describe_sample(&self, index: usize) -> String {
        self.path(index).display().to_string()
    }

    /// Over class names, labels, and each file's path below the root and its size: an unpacked copy has the same.
    fn fingerprint(&self) -> Result<Fingerprint> {
        let skip = if self.root.is_empty() { 0 } else { self.root.len() + 1 };
        let files = self.files.iter();
        let files = files.map(|file| (file.label, &file.name.as_bytes()[skip..], file.bytes));
        Ok(image_files::fingerprint(&self.classes, files))
    }

    fn content(&self, index: usize) -> Result<Option<Fingerprint>> {
        Ok(Some(Fingerprint::of(&self.read(index)?)))
    }
}

impl ImageFiles for ImageTar {
    fn path(&self, index: usize) -> PathBuf {
        self.archive.join(&self.files[index].name)
    }

    fn read(&self, index: usize) -> Result<Vec<u8>> {
        let entry = &self.files[index];
        let now = self.file.metadata().map_err(Error::io("read", &self.archive))?.len();
        if now != self.archive_bytes {
            return Err(Error::Changed {
                path: self.archive.clone(),
                expected: self.archive_bytes,
                got: now,
            });
        }
        let mut bytes = vec![0; entry.bytes as usize];
        self.read_at(entry.offset, &mut bytes)
            .map_err(Error::io("read", &self.path(index)))?;
        Ok(bytes)
    }

    fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }
}
