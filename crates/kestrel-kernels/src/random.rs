//! Randomness as a function: a generator keyed by what the numbers are for.
//!
//! A value depends on the key alone, never on how many numbers were drawn before or on which thread. So the thread
//! count cannot change a result, and a resumed run needs no generator state.

mod threefry;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use threefry::Threefry;

/// What a stream of random numbers is for. Two purposes never share a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Initial values of a parameter; index: hash of the parameter's name.
    Init = 1,
    /// The order of samples in an epoch.
    Shuffle = 2,
    /// A random transform of one sample.
    Transform = 3,
    /// A dropout mask; epoch: the step, index: the layer.
    Dropout = 4,
    /// Splitting a data set in two.
    Split = 5,
}

/// A generator keyed by `(seed, purpose, epoch, index)`.
///
/// # Source
/// ChaCha with 8 rounds (Bernstein 2008), by the `rand_chacha` crate, whose output is stable across versions. For
/// [`Purpose::Transform`], of whose keys there is one for each sample and epoch, each for a few numbers: Threefry-4x64 with
/// 20 rounds (Salmon et al. 2011), which has no state to set up.
#[derive(Clone, Debug)]
pub struct KeyedRng(Generator);

#[derive(Clone, Debug)]
enum Generator {
    /// Many numbers of a key.
    Bulk(Box<ChaCha8Rng>),
    /// A few numbers of each of many keys.
    Few(Threefry),
}

impl KeyedRng {
    /// The generator for `(seed, purpose, epoch, index)`; equal keys give equal numbers.
    #[inline]
    pub fn new(seed: u64, purpose: Purpose, epoch: u64, index: u64) -> Self {
        let words = [seed, purpose as u64, epoch, index];
        if purpose == Purpose::Transform {
            return Self(Generator::Few(Threefry::new(words)));
        }
        let mut key = [0u8; 32];
        for (slot, word) in key.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        Self(Generator::Bulk(Box::new(ChaCha8Rng::from_seed(key))))
    }

    /// Another stream of the same key; equal numbers give equal streams. A key's own stream is number 0.
    #[inline]
    pub fn stream(mut self, number: u64) -> Self {
        match &mut self.0 {
            Generator::Bulk(chacha) => chacha.set_stream(number),
            Generator::Few(threefry) => threefry.set_stream(number),
        }
        self
    }

    /// The same stream from its `word`-th 32-bit number on, in constant time.
    pub fn starting_at(mut self, word: u64) -> Self {
        match &mut self.0 {
            Generator::Bulk(chacha) => chacha.set_word_pos(u128::from(word)),
            Generator::Few(threefry) => threefry.set_word_pos(word),
        }
        self
    }

    /// Uniform in `[0, 2^32)`.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        match &mut self.0 {
            Generator::Bulk(chacha) => chacha.next_u32(),
            Generator::Few(threefry) => threefry.next_u32(),
        }
    }

    /// Uniform in `[0, 2^64)`.
    #[inline]
    fn next_u64(&mut self) -> u64 {
        match &mut self.0 {
            Generator::Bulk(chacha) => chacha.next_u64(),
            Generator::Few(threefry) => threefry.next_u64(),
        }
    }

    /// Uniform in `[0, 1)`, with 24 bits.
    #[inline]
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in `[0, n)`; 0 for `n = 0`. The bias is below `n / 2^64`.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// A standard normal deviate, by the Box-Muller transform.
    pub fn normal(&mut self) -> f64 {
        let u = ((self.next_u64() >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        let v = (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Shuffles in place (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i as u64 + 1) as usize;
            items.swap(i, j);
        }
    }
}

/// A stable 64-bit hash of a name (FNV-1a), to key a generator by a parameter's name.
pub fn name_key(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_agree_and_every_part_of_the_key_matters() {
        let draw = |s, p, e, i| {
            let mut rng = KeyedRng::new(s, p, e, i);
            [rng.next_u32(), rng.next_u32()]
        };
        let base = draw(1, Purpose::Shuffle, 2, 3);
        assert_eq!(base, draw(1, Purpose::Shuffle, 2, 3));
        for other in [
            draw(2, Purpose::Shuffle, 2, 3),
            draw(1, Purpose::Transform, 2, 3),
            draw(1, Purpose::Shuffle, 3, 3),
            draw(1, Purpose::Shuffle, 2, 4),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_stream_can_be_entered_anywhere() {
        for purpose in [Purpose::Dropout, Purpose::Transform] {
            let stream = || KeyedRng::new(3, purpose, 1, 2).stream(5);
            let mut rng = stream();
            let words: Vec<u32> = (0..100).map(|_| rng.next_u32()).collect();
            for start in [0, 1, 7, 8, 9, 15, 16, 17, 64, 99] {
                assert_eq!(
                    stream().starting_at(start as u64).next_u32(),
                    words[start],
                    "{purpose:?} {start}"
                );
            }
        }
    }

    #[test]
    fn streams_of_a_key_differ() {
        for purpose in [Purpose::Dropout, Purpose::Transform] {
            let draw = |stream: u64| KeyedRng::new(3, purpose, 1, 2).stream(stream).next_u32();
            assert_eq!(draw(0), KeyedRng::new(3, purpose, 1, 2).next_u32());
            assert_eq!(draw(5), draw(5));
            let draws: std::collections::BTreeSet<u32> = [0, 1, 2, 3, 1 << 40, u64::MAX].map(draw).into();
            assert_eq!(draws.len(), 6);
        }
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        for purpose in [Purpose::Init, Purpose::Transform] {
            let mut rng = KeyedRng::new(7, purpose, 0, 0);
            let n = 20_000;
            let mean = (0..n).map(|_| f64::from(rng.uniform())).sum::<f64>() / f64::from(n);
            assert!((mean - 0.5).abs() < 0.01, "{mean}");
            let draws: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
            let mean = draws.iter().sum::<f64>() / f64::from(n);
            let var = draws.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / f64::from(n);
            assert!(mean.abs() < 0.03 && (var - 1.0).abs() < 0.05, "{mean} {var}");
        }
    }

    #[test]
    fn first_numbers_of_neighbouring_keys_are_independent() {
        // What a transform draws: one number for each of many samples, epochs and streams.
        let n = 20_000_u64;
        let first = |key: u64| {
            let rng = KeyedRng::new(1, Purpose::Transform, key % 7, key / 7);
            f64::from(rng.stream(key % 3).uniform())
        };
        let draws: Vec<f64> = (0..=n).map(first).collect();
        let bins = draws.iter().fold([0_u32; 16], |mut bins, draw| {
            bins[(draw * 16.0) as usize] += 1;
            bins
        });
        let expected = draws.len() as f64 / 16.0;
        let chi2: f64 = bins.iter().map(|&b| (f64::from(b) - expected).powi(2) / expected).sum();
        // 15 degrees of freedom: above 45 with a probability of 1e-4.
        assert!(chi2 < 45.0, "{chi2}");
        let correlation = draws.windows(2).map(|w| (w[0] - 0.5) * (w[1] - 0.5)).sum::<f64>() * 12.0 / n as f64;
        assert!(correlation.abs() < 0.03, "{correlation}");
    }

    #[test]
    fn shuffle_is_a_permutation() {
        let mut items: Vec<u32> = (0..1000).collect();
        KeyedRng::new(0, Purpose::Shuffle, 0, 0).shuffle(&mut items);
        assert_ne!(items, (0..1000).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..1000).collect::<Vec<_>>());
    }
}
