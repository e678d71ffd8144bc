//! The confusion matrix, and the accuracies that follow from it.

/// How often a class was predicted for a target: rows are targets, columns predictions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionMatrix {
    num_classes: usize,
    counts: Vec<u64>,
}

impl ConfusionMatrix {
    /// An empty matrix.
    pub fn new(num_classes: usize) -> Self {
        Self {
            num_classes,
            counts: vec![0; num_classes * num_classes],
        }
    }

    /// Adds a batch of predictions. Pairs out of range are impossible for a checked data set and are passed over.
    pub fn add(&mut self, predicted: &[u32], targets: &[u32]) {
        for (&p, &t) in predicted.iter().zip(targets) {
            let (p, t) = (p as usize, t as usize);
            if p < self.num_classes && t < self.num_classes {
                self.counts[t * self.num_classes + p] += 1;
            }
        }
    }

    /// How often `predicted` was given for `target`.
    pub fn count(&self, target: usize, predicted: usize) -> u64 {
        self.counts[target * self.num_classes + predicted]
    }

    /// How many samples have this target.
    pub fn support(&self, target: usize) -> u64 {
        (0..self.num_classes).map(|p| self.count(target, p)).sum()
    }

    /// How many samples were taken for this class.
    pub fn predicted(&self, class: usize) -> u64 {
        (0..self.num_classes).map(|target| self.count(target, class)).sum()
    }

    /// How many classes there are.
    pub fn num_classes(&self) -> usize {
        self.num_classes
    }

    /// The counts, a row for each target.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[u64]> {
        self.counts.chunks_exact(self.num_classes.max(1))
    }

    /// How many samples were added.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Accuracy over all samples in `[0, 1]`; 0 where nothing was added.
    pub fn accuracy(&self) -> f64 {
        let correct: u64 = (0..self.num_classes).map(|c| self.count(c, c)).sum();
        ratio(correct, self.total())
    }

    /// The share of a class's samples that were recognised; `None` where the class has no sample.
    pub fn class_accuracy(&self, target: usize) -> Option<f64> {
        let support = self.support(target);
        (support > 0).then(|| ratio(self.count(target, target), support))
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::ConfusionMatrix;

    #[test]
    fn rows_are_targets() {
        let mut matrix = ConfusionMatrix::new(3);
        matrix.add(&[0, 1, 1, 1], &[0, 0, 1, 1]);
        assert_eq!(matrix.count(0, 1), 1);
        assert_eq!(matrix.count(1, 0), 0);
        assert_eq!(matrix.class_accuracy(0), Some(0.5));
        assert_eq!(matrix.class_accuracy(1), Some(1.0));
        assert_eq!(matrix.class_accuracy(2), None);
        assert_eq!(matrix.accuracy(), 0.75);
        assert_eq!([0, 1, 2].map(|class| matrix.predicted(class)), [1, 3, 0]);
        assert_eq!(matrix.rows().next(), Some(&[1, 1, 0][..]));
    }
}
