//! Counting what was left out.

use kestrel_data::datasets::{SkipReason, Skipped};

/// How many were left out for a reason.
pub(crate) fn count_skipped(skipped: &[Skipped], reason: SkipReason) -> usize {
    skipped.iter().filter(|one| one.reason == reason).count()
}
