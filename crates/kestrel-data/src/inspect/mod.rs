//! `inspect`: what a data set holds, and what is wrong with it: every broken, duplicate or suspicious sample, and what was left
//! out of it.
//!
//! Every image is read and decoded once, side by side. Sums are whole numbers, so that the report is the same for any number of
//! threads. Nothing is changed, and nothing is printed: [`Report`] is for whoever prints it.

mod duplicates;
mod exif;
mod sample;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use crate::datasets::{self, Dataset, ImageFiles, Opened, Splits};
use crate::error::{Error, Result};
use sample::Facts;

pub use duplicates::Duplicate;

/// What a data set holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Where it is.
    pub path: String,
    /// Its splits; `all` where it is one whole.
    pub splits: Vec<SplitReport>,
    /// Samples that cannot be decoded.
    pub broken: Vec<Finding>,
    /// Groups of samples that are the same.
    pub duplicates: Vec<Duplicate>,
    /// Samples that can be decoded, but look as if something were wrong.
    pub suspicious: Vec<Finding>,
    /// Files and folders that are no samples, each once.
    pub skipped: Vec<LeftOut>,
}

/// What a split holds; sizes, mean and std are of the samples that can be decoded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitReport {
    /// `train`, `val`, `test` or `all`.
    pub name: &'static str,
    /// Number of samples.
    pub samples: usize,
    /// Each class and its number of samples, in the order of the labels.
    pub classes: Vec<(String, usize)>,
    /// Each format and its number of files; none for data sets of bare pixels.
    pub formats: Vec<(&'static str, usize)>,
    /// Bytes of all files; for data sets of bare pixels, of the pixels.
    pub bytes: u64,
    /// Each size as width and height, and its number of images, the most frequent first.
    pub sizes: Vec<(usize, usize, usize)>,
    /// Mean of red, green and blue over all pixels, of values in `[0, 1]`.
    pub mean: [f64; 3],
    /// Standard deviation of the same (that of the population).
    pub std: [f64; 3],
}

/// A sample, and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The split.
    pub split: &'static str,
    /// The sample's index in it.
    pub index: usize,
    /// Its class.
    pub class: String,
    /// Its file, or its place in the data set.
    pub sample: String,
    /// What is wrong.
    pub finding: String,
}

/// A file or folder that is no sample.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LeftOut {
    /// Where it is.
    pub path: String,
    /// Why, in words that follow the path: `is no image`.
    pub reason: &'static str,
}

/// The samples of a split, one after the other.
struct Split<'a> {
    name: &'static str,
    dataset: &'a dyn Dataset,
    files: Option<&'a dyn ImageFiles>,
    facts: Vec<Facts>,
}

/// Inspects what [`datasets::open_any`] would open. `progress` is called with the number of samples done and of all, from any
/// thread.
///
/// # Errors
/// [`Error::UnknownLayout`], and those of opening the data set; a broken image is none, but a part of the report.
pub fn inspect(path: &Path, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<Report> {
    if let Some(splits) = datasets::open_binary(path)? {
        return Ok(of(
            path,
            &Opened::Splits(splits.into_dyn()),
            |split| (split, None),
            progress,
        ));
    }
    let files = datasets::open_files(path)?.ok_or_else(|| Error::UnknownLayout {
        path: path.to_path_buf(),
        expected: datasets::LAYOUTS,
    })?;
    Ok(of(
        path,
        &files,
        |split: &dyn ImageFiles| (split, Some(split)),
        progress,
    ))
}

fn of<'a, D: ?Sized + 'a>(
    path: &Path,
    opened: &'a Opened<D>,
    as_split: impl Fn(&'a D) -> (&'a dyn Dataset, Option<&'a dyn ImageFiles>),
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Report {
    let named: Vec<(&'static str, &'a D)> = match opened {
        Opened::Splits(splits) => names(splits),
        Opened::Whole(whole) => vec![("all", whole.as_ref())],
    };
    let parts: Vec<_> = named.into_iter().map(|(name, split)| (name, as_split(split))).collect();
    let total = parts.iter().map(|(_, (dataset, _))| dataset.len()).sum();
    let done = std::sync::atomic::AtomicUsize::new(0);
    let splits: Vec<Split<'_>> = parts
        .into_iter()
        .map(|(name, (dataset, files))| {
            let facts = (0..dataset.len()).into_par_iter().map(|index| {
                let facts = Facts::of(dataset, files, index);
                progress(done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1, total);
                facts
            });
            let facts = facts.collect();
            Split {
                name,
                dataset,
                files,
                facts,
            }
        })
        .collect();
    let findings = |of: fn(&Facts) -> Vec<String>| {
        let per_split = splits.iter().flat_map(|split| {
            let each = split.facts.iter().enumerate();
            each.flat_map(move |(index, facts)| of(facts).into_iter().map(move |text| split.finding(index, text)))
        });
        per_split.collect::<Vec<_>>()
    };
    Report {
        path: path.display().to_string(),
        broken: findings(|facts| facts.broken.iter().cloned().collect()),
        suspicious: findings(|facts| facts.suspicious.clone()),
        duplicates: duplicates::find(&splits),
        skipped: left_out(&splits),
        splits: splits.iter().map(Split::report).collect(),
    }
}

/// What the splits left out; those of an archive name the same.
fn left_out(splits: &[Split<'_>]) -> Vec<LeftOut> {
    let skipped = splits
        .iter()
        .filter_map(|split| split.files)
        .flat_map(|files| files.skipped());
    let left_out = skipped.map(|one| LeftOut {
        path: one.path.display().to_string(),
        reason: one.reason.words(),
    });
    left_out.collect::<BTreeSet<_>>().into_iter().collect()
}

fn names<D: ?Sized>(splits: &Splits<D>) -> Vec<(&'static str, &D)> {
    splits.named().map(|(name, split)| (name, split.as_ref())).collect()
}

impl Split<'_> {
    fn class(&self, index: usize) -> &str {
        &self.dataset.classes()[self.dataset.label(index) as usize]
    }

    fn finding(&self, index: usize, finding: String) -> Finding {
        Finding {
            split: self.name,
            index,
            class: self.class(index).to_owned(),
            sample: self.dataset.describe_sample(index),
            finding,
        }
    }

    fn report(&self) -> SplitReport {
        let counts = crate::sampler::class_counts(self.dataset);
        let mut formats: BTreeMap<&'static str, usize> = BTreeMap::new();
        let mut sizes: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        let (mut pixels, mut sums, mut squares) = (0u128, [0u128; 3], [0u128; 3]);
        for facts in &self.facts {
            if self.files.is_some() {
                *formats
                    .entry(facts.format.map_or("unknown", |format| format.name()))
                    .or_default() += 1;
            }
            if let Some(stats) = &facts.pixels {
                *sizes.entry((stats.width, stats.height)).or_default() += 1;
                pixels += (stats.width * stats.height) as u128;
                for channel in 0..3 {
                    sums[channel] += u128::from(stats.sums[channel]);
                    squares[channel] += u128::from(stats.squares[channel]);
                }
            }
        }
        let mut sizes: Vec<_> = sizes
            .into_iter()
            .map(|((width, height), count)| (width, height, count))
            .collect();
        sizes.sort_by_key(|&(width, height, count)| (std::cmp::Reverse(count), width, height));
        let mean = sums.map(|sum| {
            if pixels == 0 {
                0.0
            } else {
                sum as f64 / pixels as f64 / 255.0
            }
        });
        let std = std::array::from_fn(|channel| {
            // n sum(x^2) - sum(x)^2 is exact in whole numbers.
            let spread = pixels * squares[channel] - sums[channel] * sums[channel];
            if pixels == 0 {
                0.0
            } else {
                (spread as f64).sqrt() / pixels as f64 / 255.0
            }
        });
        SplitReport {
            name: self.name,
            samples: self.dataset.len(),
            classes: self.dataset.classes().iter().cloned().zip(counts).collect(),
            formats: formats.into_iter().collect(),
            bytes: self.facts.iter().map(|facts| facts.bytes).sum(),
            sizes,
            mean,
            std,
        }
    }
}
