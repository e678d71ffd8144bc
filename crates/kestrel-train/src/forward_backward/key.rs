//! Which passes a recording is for.

use candle_core::{DType, Shape, TensorId};
use kestrel_kernels::autocast::Precision;

/// So many passes running of another shape are no epoch's last batch.
const RUNNING: usize = 4;

/// What a recording depends on, besides the contents of tensors.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) images: Shape,
    pub(super) targets: (Shape, DType),
    pub(super) trained: Vec<TensorId>,
    pub(super) precision: Precision,
    pub(super) seed: u64,
}

impl Key {
    fn is_of_another_shape(&self, other: &Self) -> bool {
        (&self.images, &self.targets) != (&other.images, &other.targets)
    }
}

/// What is to be done with a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// It is as those before it.
    Known,
    /// It is of another shape, which may not come again.
    Passing,
    /// From it on, passes are of another kind: what is known of those before does not hold.
    New,
}

/// The passes that are recorded, or will be.
#[derive(Debug, Default)]
pub(super) struct Followed {
    known: Option<Key>,
    /// Of another shape, and how many passes running were of it.
    other: Option<(Key, usize)>,
}

impl Followed {
    pub(super) fn meet(&mut self, key: Key) -> Meeting {
        let other = self.other.take();
        match &self.known {
            Some(known) if *known == key => return Meeting::Known,
            Some(known) if known.is_of_another_shape(&key) => {
                let before = other.filter(|(other, _)| *other == key).map_or(0, |(_, passes)| passes);
                if before + 1 < RUNNING {
                    self.other = Some((key, before + 1));
                    return Meeting::Passing;
                }
            }
            _ => {}
        }
        self.known = Some(key);
        Meeting::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    fn key(batch: usize, trained: &[TensorId]) -> Key {
        Key {
            images: Shape::from((batch, 3, 32, 32)),
            targets: (Shape::from(batch), DType::U32),
            trained: trained.to_vec(),
            precision: Precision::F32,
            seed: 0,
        }
    }

    #[test]
    fn an_epochs_last_batch_changes_nothing() {
        let mut followed = Followed::default();
        assert_eq!(followed.meet(key(8, &[])), Meeting::New);
        for _ in 0..2 * RUNNING {
            assert_eq!(followed.meet(key(8, &[])), Meeting::Known);
            for batch in [3, 5, 3] {
                assert_eq!(followed.meet(key(batch, &[])), Meeting::Passing);
            }
        }
    }

    #[test]
    fn a_shape_that_stays_is_followed() {
        let mut followed = Followed::default();
        // The first batch may be an odd one.
        assert_eq!(followed.meet(key(3, &[])), Meeting::New);
        for _ in 1..RUNNING {
            assert_eq!(followed.meet(key(8, &[])), Meeting::Passing);
        }
        assert_eq!(followed.meet(key(8, &[])), Meeting::New);
        assert_eq!(followed.meet(key(8, &[])), Meeting::Known);
        assert_eq!(followed.meet(key(3, &[])), Meeting::Passing);
    }

    #[test]
    fn other_parameters_of_the_same_shape_begin_anew_at_once() {
        let trained = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap().id();
        let mut followed = Followed::default();
        assert_eq!(followed.meet(key(8, &[])), Meeting::New);
        assert_eq!(followed.meet(key(8, &[trained])), Meeting::New);
        assert_eq!(followed.meet(key(8, &[trained])), Meeting::Known);
    }
}
