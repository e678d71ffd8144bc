//! The loss and its gradient on slices; a row of logits is a piece of work, and every sum is kept in `f64`.

use crate::element::Element;
use rayon::prelude::*;

/// Logits below which rows are not shared out one by one.
const BLOCK: usize = 1 << 10;

/// What the logits are compared with.
#[derive(Clone, Copy)]
pub(crate) enum Targets<'a, T> {
    /// A class for each row, below the number of classes.
    Classes(&'a [u32]),
    /// A probability for each logit.
    Probabilities(&'a [T]),
}

/// A mean cross-entropy, by the equations of [`cross_entropy_with`](super::cross_entropy_with).
#[derive(Clone, Copy)]
pub(crate) struct Loss<'a, T> {
    pub(crate) targets: Targets<'a, T>,
    /// At least 1.
    pub(crate) num_classes: usize,
    pub(crate) label_smoothing: f64,
    /// One for each class.
    pub(crate) class_weights: Option<&'a [f64]>,
}

impl<T: Element> Loss<'_, T> {
    /// The loss of `logits` `[N, C]`; NaN without rows.
    pub(crate) fn value(&self, logits: &[T]) -> f64 {
        let losses: Vec<f64> = logits
            .par_chunks(self.num_classes)
            .with_min_len(self.rows_at_once())
            .enumerate()
            .map(|(n, row)| {
                let (max, log_sum) = log_sum_exp(row);
                let minus_log = |logit: T| log_sum - (logit.widen() - max);
                match self.targets {
                    // The other classes have no part in the sum, not even if their probability is 0.
                    Targets::Classes(classes) if self.label_smoothing == 0.0 => {
                        let class = classes[n] as usize;
                        self.weight(class) * minus_log(row[class])
                    }
                    _ => {
                        let terms = row.iter().enumerate();
                        terms.map(|(c, logit)| self.share(n, c) * minus_log(*logit)).sum()
                    }
                }
            })
            .collect();
        losses.iter().sum::<f64>() / self.divisor(losses.len())
    }

    /// Writes the gradient of `logits` `[N, C]`, times `grad`.
    pub(crate) fn backward(&self, logits: &[T], grad: f64, dlogits: &mut [T]) {
        assert_eq!(logits.len(), dlogits.len(), "a gradient for each logit");
        let scale = grad / self.divisor(logits.len() / self.num_classes);
        dlogits
            .par_chunks_mut(self.num_classes)
            .zip(logits.par_chunks(self.num_classes))
            .with_min_len(self.rows_at_once())
            .enumerate()
            .for_each(|(n, (dlogits, row))| {
                let (max, log_sum) = log_sum_exp(row);
                let total: f64 = (0..row.len()).map(|c| self.share(n, c)).sum();
                for (c, (dlogit, logit)) in dlogits.iter_mut().zip(row).enumerate() {
                    let probability = (logit.widen() - max - log_sum).exp();
                    *dlogit = T::narrow((probability * total - self.share(n, c)) * scale);
                }
            });
    }

    /// How often the negative log-probability of class `c` counts in row `n`.
    #[inline(always)]
    fn share(&self, n: usize, c: usize) -> f64 {
        let (keep, spread) = (
            1.0 - self.label_smoothing,
            self.label_smoothing / self.num_classes as f64,
        );
        let target = match self.targets {
            Targets::Classes(classes) => f64::from(u8::from(classes[n] as usize == c)),
            Targets::Probabilities(probabilities) => probabilities[n * self.num_classes + c].widen(),
        };
        (keep * target + spread) * self.weight(c)
    }

    #[inline(always)]
    fn weight(&self, class: usize) -> f64 {
        self.class_weights.map_or(1.0, |weights| weights[class])
    }

    /// What the sum over the rows is divided by.
    fn divisor(&self, rows: usize) -> f64 {
        match self.targets {
            Targets::Classes(classes) => classes.iter().map(|class| self.weight(*class as usize)).sum(),
            Targets::Probabilities(_) => rows as f64,
        }
    }

    fn rows_at_once(&self) -> usize {
        (BLOCK / self.num_classes).max(1)
    }
}

/// A row's maximum and `log Σ exp(logit − maximum)`.
fn log_sum_exp<T: Element>(row: &[T]) -> (f64, f64) {
    let max = row.iter().map(|v| v.widen()).fold(f64::NEG_INFINITY, f64::max);
    (max, row.iter().map(|v| (v.widen() - max).exp()).sum::<f64>().ln())
}
