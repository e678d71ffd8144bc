//! Deterministic splits: a stratified part of a data set, and its first few samples.

use std::collections::BTreeMap;
use std::sync::Arc;

use kestrel_kernels::random::{KeyedRng, Purpose};

use crate::datasets::{Dataset, Subset};
use crate::error::{Error, Result};

/// Splits a data set in two, class by class: `(rest, held_out)`.
///
/// Of a class with `n` samples, `round(n * fraction)` are held out, drawn at random as a function of (seed, class). Both
/// parts keep the original order.
///
/// # Errors
/// [`Error::InvalidParameter`] unless `0 < fraction < 1`, [`Error::EmptySplit`] if a part would have no samples.
pub fn split_stratified(dataset: &Arc<dyn Dataset>, fraction: f64, seed: u64) -> Result<(Subset, Subset)> {
    if !(fraction > 0.0 && fraction < 1.0) {
        let expected = "more than 0 and less than 1";
        return Err(Error::InvalidParameter {
            name: "split fraction",
            expected,
            got: fraction.to_string(),
        });
    }
    let mut held_out = vec![false; dataset.len()];
    for (label, mut indices) in by_class(dataset.as_ref()) {
        KeyedRng::new(seed, Purpose::Split, 0, u64::from(label)).shuffle(&mut indices);
        let count = (indices.len() as f64 * fraction).round() as usize;
        for &index in &indices[..count.min(indices.len())] {
            held_out[index] = true;
        }
    }
    let (second, first): (Vec<_>, Vec<_>) = (0..dataset.len()).partition(|&index| held_out[index]);
    Ok((
        Subset::new(Arc::clone(dataset), first)?,
        Subset::new(Arc::clone(dataset), second)?,
    ))
}

/// `n` samples of a data set, balanced by class; all of them if it has no more.
///
/// The first of each class in turn, then the second of each, and so on until there are `n`; in the original order. Nothing
/// is drawn at random.
///
/// # Errors
/// [`Error::EmptySplit`] for `n = 0`.
pub fn limit(dataset: &Arc<dyn Dataset>, n: usize) -> Result<Subset> {
    let mut ranked: Vec<(usize, u32, usize)> = by_class(dataset.as_ref())
        .into_iter()
        .flat_map(|(label, indices)| {
            indices
                .into_iter()
                .enumerate()
                .map(move |(rank, index)| (rank, label, index))
        })
        .collect();
    ranked.sort_unstable();
    let mut indices: Vec<usize> = ranked.into_iter().take(n).map(|(_, _, index)| index).collect();
    indices.sort_unstable();
    Subset::new(Arc::clone(dataset), indices)
}

/// The indices of each label's samples, in order.
fn by_class(dataset: &dyn Dataset) -> BTreeMap<u32, Vec<usize>> {
    let mut classes: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for index in 0..dataset.len() {
        classes.entry(dataset.label(index)).or_default().push(index);
    }
    classes
}
