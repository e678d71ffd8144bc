//! Samplers: the order in which an epoch visits a data set.

use kestrel_kernels::random::{KeyedRng, Purpose};

use crate::datasets::{Dataset, check_labels};
use crate::error::{Error, Result};

/// The order of samples in an epoch, as a function of the epoch.
pub trait Sampler: Send + Sync {
    /// Number of samples in an epoch; the same for every epoch.
    fn len(&self) -> usize;

    /// Whether an epoch has no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples' indices in the data set, in the order of epoch `epoch`; `len()` of them.
    fn order(&self, epoch: u64) -> Vec<usize>;
}

/// Visits the samples `0, 1, …, len - 1`.
///
/// # Source
/// `torch.utils.data.SequentialSampler`.
#[derive(Clone, Copy, Debug)]
pub struct SequentialSampler {
    /// Number of samples.
    pub len: usize,
}

impl Sampler for SequentialSampler {
    fn len(&self) -> usize {
        self.len
    }

    fn order(&self, _epoch: u64) -> Vec<usize> {
        (0..self.len).collect()
    }
}

/// Visits every sample once, in a fresh order each epoch that is a function of (seed, epoch).
///
/// # Source
/// `torch.utils.data.RandomSampler` without replacement; the orders themselves are this crate's.
#[derive(Clone, Copy, Debug)]
pub struct RandomSampler {
    /// Number of samples.
    pub len: usize,
    /// The run's seed.
    pub seed: u64,
}

impl Sampler for RandomSampler {
    fn len(&self) -> usize {
        self.len
    }

    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len).collect();
        KeyedRng::new(self.seed, Purpose::Shuffle, epoch, 0).shuffle(&mut order);
        order
    }
}

/// Draws samples with replacement, each in proportion to its weight; a function of (seed, epoch).
///
/// # Source
/// `torch.utils.data.WeightedRandomSampler` with replacement; the draws themselves are this crate's.
#[derive(Clone, Debug)]
pub struct WeightedRandomSampler {
    /// The sums of the weights up to and with each sample's.
    sums: Vec<f64>,
    num_samples: usize,
    seed: u64,
}

impl WeightedRandomSampler {
    /// Draws `num_samples` samples an epoch; sample `i` has weight `weights[i]`.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a weight that is negative or not finite, or if their sum is not above 0.
    pub fn new(weights: &[f64], num_samples: usize, seed: u64) -> Result<Self> {
        let invalid = |got: String| Error::InvalidParameter {
            name: "sampler weights",
            expected: "finite weights of at least 0, with a sum above 0",
            got,
        };
        let mut sum = 0.0;
        let mut sums = Vec::with_capacity(weights.len());
        for &weight in weights {
            if !weight.is_finite() || weight < 0.0 {
                return Err(invalid(weight.to_string()));
            }
            sum += weight;
            sums.push(sum);
        }
        if sum <= 0.0 || !sum.is_finite() {
            return Err(invalid(format!("a sum of {sum}")));
        }
        Ok(Self {
            sums,
            num_samples,
            seed,
        })
    }

    /// Every class alike, whatever its number of samples; as many draws an epoch as the data set has samples.
    ///
    /// # Errors
    /// Those of [`Self::new`], for a data set without samples, and [`Error::LabelOutOfRange`].
    pub fn class_balanced(dataset: &dyn Dataset, seed: u64) -> Result<Self> {
        check_classes(dataset)?;
        let counts = class_counts(dataset);
        let weight = |index| 1.0 / counts[dataset.label(index) as usize] as f64;
        let weights: Vec<f64> = (0..dataset.len()).map(weight).collect();
        Self::new(&weights, dataset.len(), seed)
    }

    /// Each sample by its class's weight, `class_weights[label]`; as many draws an epoch as the data set has samples.
    ///
    /// # Errors
    /// Those of [`Self::new`], [`Error::InvalidParameter`] unless there is a weight for each class, and
    /// [`Error::LabelOutOfRange`].
    pub fn by_class(dataset: &dyn Dataset, class_weights: &[f64], seed: u64) -> Result<Self> {
        if class_weights.len() != dataset.classes().len() {
            return Err(Error::InvalidParameter {
                name: "class weights",
                expected: "one for each class",
                got: format!("{} for {} classes", class_weights.len(), dataset.classes().len()),
            });
        }
        check_classes(dataset)?;
        let weight = |index| class_weights[dataset.label(index) as usize];
        let weights: Vec<f64> = (0..dataset.len()).map(weight).collect();
        Self::new(&weights, dataset.len(), seed)
    }
}

impl Sampler for WeightedRandomSampler {
    fn len(&self) -> usize {
        self.num_samples
    }

    fn order(&self, epoch: u64) -> Vec<usize> {
        let total = self.sums.last().copied().unwrap_or_default();
        let mut rng = KeyedRng::new(self.seed, Purpose::Shuffle, epoch, 1);
        let draw = |_| {
            // 53 bits, as many as an f64 in [0, 1) has: 24 would not tell a million samples apart.
            let bits = (u64::from(rng.next_u32()) << 21) ^ (u64::from(rng.next_u32()) >> 11);
            let point = bits as f64 / (1u64 << 53) as f64 * total;
            // The first sum past the point: a weight of 0 has no width, so it is never drawn.
            self.sums.partition_point(|&sum| sum <= point).min(self.last_drawable())
        };
        (0..self.num_samples).map(draw).collect()
    }
}

impl WeightedRandomSampler {
    /// The last sample of a weight above 0: a point that rounds up to the total is its.
    fn last_drawable(&self) -> usize {
        let total = self.sums.last().copied().unwrap_or_default();
        self.sums.partition_point(|&sum| sum < total)
    }
}

/// Checks that every label has a class: a data set of the caller's own may not have done so.
fn check_classes(dataset: &dyn Dataset) -> Result<()> {
    let labels = (0..dataset.len()).map(|index| u64::from(dataset.label(index)));
    check_labels(dataset.describe().as_ref(), labels, dataset.classes().len())
}

/// Number of samples of each class. Labels are below the class count, as [`Dataset`] says.
pub(crate) fn class_counts(dataset: &dyn Dataset) -> Vec<usize> {
    let mut counts = vec![0; dataset.classes().len()];
    for index in 0..dataset.len() {
        counts[dataset.label(index) as usize] += 1;
    }
    counts
}
