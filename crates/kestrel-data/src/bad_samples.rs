//! What happens to samples whose image is damaged: `--on-bad-sample {error,skip}`.
//!
//! Skipping drops the sample, logs its path, counts it, and fails once more than a share of the data set is bad. Nothing is
//! ever put in its place: a batch with a dropped sample is smaller. Only a fault of the image itself can be skipped
//! ([`Error::is_bad_image`]); a file that vanished or changed, or a fault of the program, always ends the run.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What happens to a sample whose image is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadSample {
    /// It is an error that names it.
    #[default]
    Error,
    /// It is dropped, logged and counted.
    Skip,
}

impl FromStr for OnBadSample {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "error" => Ok(Self::Error),
            "skip" => Ok(Self::Skip),
            _ => Err(Error::InvalidParameter {
                name: "on-bad-sample",
                expected: "error or skip",
                got: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for OnBadSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Skip => "skip",
        })
    }
}

/// What happens to bad samples, and how many are borne.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BadSamplePolicy {
    /// What happens to one.
    pub on_bad_sample: OnBadSample,
    /// The share of a data set's samples that may be skipped, in `[0, 1]`; more are an error.
    pub max_bad_fraction: f64,
}

impl Default for BadSamplePolicy {
    fn default() -> Self {
        Self {
            on_bad_sample: OnBadSample::Error,
            max_bad_fraction: 0.01,
        }
    }
}

/// The bad samples of one data set that were met so far.
#[derive(Debug)]
pub(crate) struct BadSamples {
    policy: BadSamplePolicy,
    dataset: String,
    samples: usize,
    seen: Mutex<BTreeSet<usize>>,
}

impl BadSamples {
    /// None met yet, of `samples` samples of `dataset`.
    pub(crate) fn new(policy: BadSamplePolicy, dataset: String, samples: usize) -> Result<Self> {
        if !(0.0..=1.0).contains(&policy.max_bad_fraction) {
            return Err(Error::InvalidParameter {
                name: "max-bad-fraction",
                expected: "at least 0 and at most 1",
                got: policy.max_bad_fraction.to_string(),
            });
        }
        Ok(Self {
            policy,
            dataset,
            samples,
            seen: Mutex::default(),
        })
    }

    /// Whether a sample that fails like this may be dropped, while there are not too many.
    pub(crate) fn may_skip(&self, error: &Error) -> bool {
        self.policy.on_bad_sample == OnBadSample::Skip && error.is_bad_image()
    }

    /// Takes note of a sample that failed: it is to be dropped, or the error is to be passed on.
    ///
    /// A sample that is met again, in a later epoch, counts once. Once there are too many, every further one is an error.
    pub(crate) fn admit(&self, index: usize, error: Error) -> Result<()> {
        if !self.may_skip(&error) {
            return Err(error);
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let first_time = seen.insert(index);
        let bad = seen.len();
        if bad as f64 > self.policy.max_bad_fraction * self.samples as f64 {
            return Err(Error::TooManyBadSamples {
                dataset: self.dataset.clone(),
                bad,
                samples: self.samples,
                max_bad_fraction: self.policy.max_bad_fraction,
                last: Box::new(error),
            });
        }
        if first_time {
            tracing::warn!(dataset = %self.dataset, index, bad, "skipped a bad sample: {error}");
        }
        Ok(())
    }

    /// The samples that were skipped so far, in rising order.
    pub(crate) fn seen(&self) -> Vec<usize> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().copied().collect()
    }

    /// Counts samples that an earlier process skipped.
    pub(crate) fn add(&self, samples: &[usize]) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(samples);
    }

    /// How many different samples were skipped.
    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad() -> Error {
        Error::TruncatedImage {
            path: "a.jpg".into(),
            reason: "it has no end-of-image marker",
        }
    }

    #[test]
    fn skipping_counts_each_sample_once_and_stops_at_the_cap() {
        let policy = BadSamplePolicy {
            on_bad_sample: OnBadSample::Skip,
            max_bad_fraction: 0.1,
        };
        let samples = BadSamples::new(policy, "d".into(), 20).unwrap();
        for index in [3, 3, 5, 3] {
            samples.admit(index, bad()).unwrap();
        }
        assert_eq!(samples.count(), 2);
        let error = samples.admit(7, bad()).unwrap_err().to_string();
        assert!(
            error.contains("3 of the 20 samples of d") && error.contains("a.jpg"),
            "{error}"
        );
        // Once there are too many, every further one ends the run, also one that was met before.
        for (index, bad_now) in [(7, 3), (3, 3), (9, 4)] {
            let error = samples.admit(index, bad()).unwrap_err();
            assert!(
                matches!(error, Error::TooManyBadSamples { bad, .. } if bad == bad_now),
                "{error}"
            );
        }
    }

    #[test]
    fn only_damaged_images_are_skipped_and_only_when_asked() {
        let samples = |on_bad_sample| {
            let policy = BadSamplePolicy {
                on_bad_sample,
                max_bad_fraction: 1.0,
            };
            BadSamples::new(policy, "d".into(), 9).unwrap()
        };
        assert!(samples(OnBadSample::Error).admit(0, bad()).is_err());
        let vanished = Error::Io {
            action: "read",
            path: "a".into(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        assert!(samples(OnBadSample::Skip).admit(0, vanished).is_err());
        for fraction in [-0.1, 1.1, f64::NAN] {
            let policy = BadSamplePolicy {
                max_bad_fraction: fraction,
                ..BadSamplePolicy::default()
            };
            assert!(BadSamples::new(policy, "d".into(), 9).is_err());
        }
        assert_eq!("skip".parse::<OnBadSample>().unwrap().to_string(), "skip");
        assert!("ignore".parse::<OnBadSample>().is_err());
    }
}
