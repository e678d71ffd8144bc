//! What is said of an image: its likeliest classes, in JSON the same by `predict` and by `serve`.

use kestrel_train::predictor::top_k;
use serde::Serialize;

/// A class and its probability.
#[derive(Debug, Serialize)]
pub(super) struct ClassLine<'a> {
    pub(super) class: &'a str,
    pub(super) probability: f32,
}

/// The `k` likeliest of `classes` by a row of probabilities, the likeliest first.
pub(super) fn class_lines<'a>(classes: &'a [String], row: &[f32], k: usize) -> Vec<ClassLine<'a>> {
    let line = |(class, probability): (usize, f32)| ClassLine {
        class: classes.get(class).map_or("", String::as_str),
        probability,
    };
    top_k(row, k).into_iter().map(line).collect()
}
