//! Samples that are the same: the same file, or the same pixels in another file.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Split;
use crate::fingerprint::Fingerprint;

/// Samples with the same pixels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Duplicate {
    /// Whether the files are the same too, byte by byte.
    pub same_file: bool,
    /// Whether they lie in more than one split: the test split is then not unseen.
    pub across_splits: bool,
    /// Whether they have more than one class: one of them is wrong.
    pub across_classes: bool,
    /// Each sample's split, class and file or place.
    pub samples: Vec<(&'static str, String, String)>,
}

/// All groups of two and more; those across splits or classes first, then in the order of their first samples.
pub(super) fn find(splits: &[Split<'_>]) -> Vec<Duplicate> {
    let mut groups: BTreeMap<&[u8; 32], Vec<(usize, usize)>> = BTreeMap::new();
    for (number, split) in splits.iter().enumerate() {
        for (index, facts) in split.facts.iter().enumerate() {
            // Broken files can be copies of each other too.
            let hash = facts.pixels.as_ref().map(|pixels| &pixels.hash).or(facts.file.as_ref());
            if let Some(hash) = hash {
                groups.entry(hash.bytes()).or_default().push((number, index));
            }
        }
    }
    let mut groups: Vec<Vec<(usize, usize)>> = groups.into_values().filter(|group| group.len() > 1).collect();
    groups.sort_unstable();
    let mut found: Vec<Duplicate> = groups.iter().map(|group| describe(splits, group)).collect();
    found.sort_by_key(|group| !(group.across_splits || group.across_classes));
    found
}

fn describe(splits: &[Split<'_>], group: &[(usize, usize)]) -> Duplicate {
    let samples: Vec<_> = group
        .iter()
        .map(|&(split, index)| {
            let split = &splits[split];
            (
                split.name,
                split.class(index).to_owned(),
                split.dataset.describe_sample(index),
            )
        })
        .collect();
    let files: BTreeSet<Option<&[u8; 32]>> = group
        .iter()
        .map(|&(split, index)| splits[split].facts[index].file.as_ref().map(Fingerprint::bytes))
        .collect();
    Duplicate {
        // Bare pixels have no file: then there is nothing else in which they could differ.
        same_file: files.len() == 1,
        across_splits: samples.iter().any(|sample| sample.0 != samples[0].0),
        across_classes: samples.iter().any(|sample| sample.1 != samples[0].1),
        samples,
    }
}
