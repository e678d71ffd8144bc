//! The logits of a whole split with their targets: what top-k, calibration and temperature are computed from.

use candle_core::{DType, Device, Tensor};

use crate::Result;

/// One row of logits an image, in the order of evaluation. Takes `4 N C` bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logits {
    num_classes: usize,
    /// `[N, C]`.
    values: Vec<f32>,
    /// `[N]`.
    targets: Vec<u32>,
    /// `[N]`: each image's index in the data set.
    indices: Vec<usize>,
}

impl Logits {
    /// No rows yet, of `num_classes` logits each.
    pub fn new(num_classes: usize) -> Self {
        Self {
            num_classes,
            ..Self::default()
        }
    }

    /// Adds a batch.
    ///
    /// # Shapes
    /// `logits [N, C]`, N `targets`, N `indices` in the data set.
    ///
    /// # Errors
    /// Where a device fails, or the rows are not of `C` logits.
    pub fn add(&mut self, logits: &Tensor, targets: &[u32], indices: &[usize]) -> Result<()> {
        let rows = logits.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        let shape = (targets.len(), self.num_classes);
        let rows = rows.reshape(shape)?.flatten_all()?.to_vec1::<f32>()?;
        self.values.extend(rows);
        self.targets.extend_from_slice(targets);
        self.indices.extend_from_slice(indices);
        Ok(())
    }

    /// How many images.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// How many classes a row has.
    pub fn num_classes(&self) -> usize {
        self.num_classes
    }

    /// Each image's class.
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// Each image's index in the data set.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// Each image's logits with its target.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (&[f32], u32)> + Clone {
        let rows = self.values.chunks_exact(self.num_classes.max(1));
        rows.zip(self.targets.iter().copied())
    }

    /// An image's most likely class, and the probability of every class: softmax of its logits over `temperature`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn probabilities(&self, row: usize, temperature: f64) -> (usize, Vec<f64>) {
        let row = &self.values[row * self.num_classes..(row + 1) * self.num_classes];
        let best = largest(row);
        let weight = |v: &f32| ((f64::from(*v) - f64::from(row[best])) / temperature).exp();
        let weights: Vec<f64> = row.iter().map(weight).collect();
        let sum: f64 = weights.iter().sum();
        (best, weights.into_iter().map(|w| w / sum).collect())
    }

    /// Each image's most likely class with its probability, and the target: softmax of the logits over `temperature`.
    ///
    /// Ties go to the lowest class, as in [`super::argmax`].
    pub fn predictions(&self, temperature: f64) -> impl ExactSizeIterator<Item = Predicted> + '_ {
        self.rows().map(move |(row, target)| {
            let best = largest(row);
            let scaled = |v: f32| (f64::from(v) - f64::from(row[best])) / temperature;
            let sum: f64 = row.iter().map(|v| scaled(*v).exp()).sum();
            Predicted {
                class: best as u32,
                confidence: 1.0 / sum,
                target,
            }
        })
    }
}

/// The index of the largest, the first of equals.
fn largest(row: &[f32]) -> usize {
    let indexed = row.iter().enumerate();
    indexed.fold(0, |best, (i, v)| if *v > row[best] { i } else { best })
}

/// What a model says of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicted {
    /// The most likely class.
    pub class: u32,
    /// Its probability, in `[1 / C, 1]`.
    pub confidence: f64,
    /// The true class.
    pub target: u32,
}

impl Predicted {
    /// Whether the class is the true one.
    pub fn is_right(&self) -> bool {
        self.class == self.target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_added_and_a_higher_temperature_is_less_sure() {
        let mut logits = Logits::new(2);
        let batch = Tensor::new(&[[0f32, 1.0], [2.0, 2.0]], &Device::Cpu).unwrap();
        logits.add(&batch, &[1, 1], &[4, 7]).unwrap();
        logits.add(&batch.narrow(0, 0, 1).unwrap(), &[0], &[9]).unwrap();
        assert_eq!((logits.len(), logits.indices()), (3, &[4, 7, 9][..]));
        let at = |t| logits.predictions(t).collect::<Vec<_>>();
        let sure = 1f64.exp() / (1.0 + 1f64.exp());
        assert!((at(1.0)[0].confidence - sure).abs() < 1e-12);
        assert!(at(1.0)[0].is_right() && !at(1.0)[2].is_right());
        // A tie is the lowest class.
        assert_eq!((at(1.0)[1].class, at(1.0)[1].confidence), (0, 0.5));
        let (best, probabilities) = logits.probabilities(0, 1.0);
        assert!(best == 1 && (probabilities[1] - sure).abs() < 1e-12 && (probabilities[0] + sure - 1.0).abs() < 1e-12);
        assert!(at(2.0)[0].confidence < sure && at(0.5)[0].confidence > sure);
    }

    #[test]
    fn rows_of_another_width_are_refused() {
        let batch = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        assert!(Logits::new(2).add(&batch, &[0, 1], &[0, 1]).is_err());
    }
}
