//! `ImageCsv`: a table of images with the columns `path` and `label`, and `split` if there are several.
//!
//! The first line names the columns, in any order; others are ignored. Paths are relative to the table's folder. Labels are
//! class names: where all are whole numbers they are sorted by value, else by their bytes. `split` is `train`, `val` or `test`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::image_files::{self, ImageFiles};
use super::image_folder::read_unchanged;
use super::{Dataset, Opened, Splits};
use crate::decode::{self, Choose};
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::pixels::Image;

#[derive(Clone, Debug)]
struct Row {
    path: PathBuf,
    /// The path as the table has it.
    name: String,
    bytes: u64,
    label: u32,
}

/// Images that a table lists, in its order, decoded when asked for.
#[derive(Clone, Debug)]
pub struct ImageCsv {
    table: PathBuf,
    split: Option<&'static str>,
    classes: Vec<String>,
    rows: Vec<Row>,
}

/// A line of the table.
struct Line {
    number: u64,
    path: String,
    label: String,
    split: Option<&'static str>,
}

const SPLITS: [&str; 3] = ["train", "val", "test"];

impl ImageCsv {
    /// Opens a table. With a column `split`, `train` and one of the others must occur.
    ///
    /// # Errors
    /// [`Error::BadRow`] for a column or a value that is missing, an unknown split, a path that occurs twice, however it is
    /// spelt, or a file that is not there; [`Error::EmptySplit`]; [`Error::Io`].
    pub fn open(table: &Path) -> Result<Opened<Self>> {
        let _span = tracing::info_span!("index", table = %table.display()).entered();
        let lines = read_lines(table)?;
        let classes = classes(&lines);
        let folder = table.parent().unwrap_or(Path::new(""));
        let part = |split: Option<&'static str>| -> Result<Option<Arc<Self>>> {
            let mut rows = Vec::new();
            for line in lines.iter().filter(|line| line.split == split) {
                let path = folder.join(&line.path);
                let bytes = fs::metadata(&path).map_err(|e| Error::BadRow {
                    path: table.to_path_buf(),
                    line: line.number,
                    reason: format!("cannot read {}: {e}", path.display()),
                })?;
                let label = classes
                    .iter()
                    .position(|class| *class == line.label)
                    .unwrap_or_default();
                rows.push(Row {
                    path,
                    name: line.path.clone(),
                    bytes: bytes.len(),
                    label: label as u32,
                });
            }
            let table = table.to_path_buf();
            Ok((!rows.is_empty()).then(|| {
                Arc::new(Self {
                    table,
                    split,
                    classes: classes.clone(),
                    rows,
                })
            }))
        };
        let empty = |what: &str| Error::EmptySplit {
            path: format!("{what} of {}", table.display()).into(),
        };
        if lines.iter().all(|line| line.split.is_none()) {
            return part(None)?.map(Opened::Whole).ok_or_else(|| empty("the table"));
        }
        let [train, val, test] = SPLITS.map(|split| part(Some(split)));
        let (train, val, test) = (train?.ok_or_else(|| empty("split train"))?, val?, test?);
        let splits = match (val, test) {
            (val, Some(test)) => Splits { train, val, test },
            (Some(val), None) => Splits {
                train,
                val: None,
                test: val,
            },
            (None, None) => return Err(empty("split test")),
        };
        Ok(Opened::Splits(splits))
    }
}

fn read_lines(table: &Path) -> Result<Vec<Line>> {
    let bad = |line, reason: String| Error::BadRow {
        path: table.to_path_buf(),
        line,
        reason,
    };
    let file = fs::File::open(table).map_err(Error::io("open", table))?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
    let failed = |e: csv::Error| {
        let line = e.position().map_or(1, csv::Position::line);
        bad(line, e.to_string())
    };
    let header = reader.headers().map_err(failed)?.clone();
    let column = |name: &str| {
        header
            .iter()
            .position(|column| column.trim_start_matches('\u{feff}') == name)
    };
    let missing = |name: &str| {
        bad(
            1,
            format!("there is no column {name:?}; the first line must name the columns path and label"),
        )
    };
    let path_at = column("path").ok_or_else(|| missing("path"))?;
    let label_at = column("label").ok_or_else(|| missing("label"))?;
    let split_at = column("split");
    let mut lines: Vec<Line> = Vec::new();
    // Each file's folder as it really is, and its name: however a path is spelt, it is met again here.
    let mut seen: BTreeMap<PathBuf, u64> = BTreeMap::new();
    let mut real_folders: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    let root = table.parent().unwrap_or(Path::new(""));
    for record in reader.records() {
        let record = record.map_err(failed)?;
        let number = record.position().map_or(0, csv::Position::line);
        let value = |at: usize, name: &str| match record.get(at) {
            Some(value) if !value.is_empty() => Ok(value.to_owned()),
            _ => Err(bad(number, format!("it has no {name}"))),
        };
        let split = match split_at {
            None => None,
            Some(at) => {
                let given = value(at, "split")?;
                let known = SPLITS.into_iter().find(|split| *split == given);
                Some(known.ok_or_else(|| bad(number, format!("split is {given:?}, expected train, val or test")))?)
            }
        };
        let (path, label) = (value(path_at, "path")?, value(label_at, "label")?);
        let place = real_place(&root.join(&path), &mut real_folders);
        let place = place.map_err(|e| bad(number, format!("cannot read {}: {e}", root.join(&path).display())))?;
        if let Some(before) = seen.insert(place, number) {
            return Err(bad(number, format!("{path:?} was listed before, in line {before}")));
        }
        lines.push(Line {
            number,
            path,
            label,
            split,
        });
    }
    Ok(lines)
}

/// A file's place without links and `.` in its folder's path; `known` keeps the folders that were met.
fn real_place(file: &Path, known: &mut BTreeMap<PathBuf, PathBuf>) -> std::io::Result<PathBuf> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let real = match known.entry(folder.to_path_buf()) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(folder.canonicalize()?),
    };
    Ok(real.join(file.file_name().unwrap_or_default()))
}

/// The class names in order.
fn classes(lines: &[Line]) -> Vec<String> {
    let names: BTreeSet<&str> = lines.iter().map(|line| line.label.as_str()).collect();
    let mut classes: Vec<String> = names.into_iter().map(str::to_owned).collect();
    if classes.iter().all(|class| class.parse::<u64>().is_ok()) {
        classes.sort_by_key(|class| class.parse::<u64>().unwrap_or(u64::MAX));
    }
    classes
}

impl Dataset for ImageCsv {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> u32 {
        self.rows[index].label
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        self.image_part(index, &mut |_, _| None)
    }

    fn image_part(&self, index: usize, choose: Choose<'_>) -> Result<Image<'_>> {
        decode::decode_part(&self.read(index)?, &self.rows[index].path, choose)
    }

    fn describe(&self) -> String {
        match self.split {
            Some(split) => format!("{} ({split})", self.table.display()),
            None => self.table.display().to_string(),
        }
    }

    fn describe_sample(&self, index: usize) -> String {
        self.rows[index].path.display().to_string()
    }

    /// Over class names, labels, and each file's path as the table has it and its size.
    fn fingerprint(&self) -> Result<Fingerprint> {
        let rows = self.rows.iter();
        let rows = rows.map(|row| (row.label, row.name.as_bytes(), row.bytes));
        Ok(image_files::fingerprint(&self.classes, rows))
    }

    fn content(&self, index: usize) -> Result<Option<Fingerprint>> {
        Ok(Some(Fingerprint::of(&self.read(index)?)))
    }
}

impl ImageFiles for ImageCsv {
    fn path(&self, index: usize) -> PathBuf {
        self.rows[index].path.clone()
    }

    fn read(&self, index: usize) -> Result<Vec<u8>> {
        let row = &self.rows[index];
        read_unchanged(&row.path, row.bytes)
    }
}
