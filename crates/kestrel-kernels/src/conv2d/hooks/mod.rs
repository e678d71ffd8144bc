//! What can be fused into a pass: a function of each input on load, and of each output before it is stored.
//!
//! Both are resolved at compile time; [`Identity`] and [`Store`] cost nothing. An [`Epilogue`] can as well be run over a
//! tensor by itself, as batch norm's passes are; so each function has one definition, fused or not.

mod affine;
mod gelu;
mod mask;
mod outputs;

pub use affine::{Affine, AffineRelu, Identity, Normalize, NormalizeAddRelu};
pub use gelu::{Gelu, ThroughGelu};
pub(crate) use mask::through_statistics;
pub use mask::{OutputMask, ReluMask, Statistics, ThroughStatistics};
pub use outputs::{AndExtremes, Bias, MaxPool, Store, Then};

use crate::simd::Simd;

/// A function of the inputs, applied when they are loaded; the zeros of the padding stay zeros.
pub trait OnLoad: Sync {
    /// The function's constants for one vector of channels.
    type Channels<S: Simd>: Copy;

    /// Panics unless the function is for `c` channels.
    fn check(&self, c: usize);

    /// The constants of channels `channel..channel + lanes`.
    fn channels<S: Simd>(&self, s: S, channel: usize, lanes: usize) -> Self::Channels<S>;

    /// The function.
    fn apply<S: Simd>(s: S, channels: Self::Channels<S>, x: S::V) -> S::V;
}

/// A function of the outputs, applied before they are stored, and sums over each channel that it gathers on the way.
pub trait Epilogue: Sync {
    /// Sums gathered for each channel.
    const SUMS: usize;

    /// Which outputs are stored.
    const STORES: Stores = Stores::All;

    /// Constants and running sums for one vector of channels of one tile.
    type Channels<S: Simd>: Copy;

    /// Panics unless the function is for `k` channels and `len` outputs, before any pooling.
    fn check(&self, k: usize, len: usize);

    /// The constants of channels `channel..channel + lanes`, and sums of zero.
    fn channels<S: Simd>(&self, s: S, channel: usize, lanes: usize) -> Self::Channels<S>;

    /// What to store for `y`, the outputs at `index..index + lanes` of the flat output.
    fn apply<S: Simd>(&self, s: S, channels: &mut Self::Channels<S>, y: S::V, index: usize, lanes: usize) -> S::V;

    /// By what outputs are compared where they are pooled: `y`, or `-y`.
    #[inline(always)]
    fn order<S: Simd>(_s: S, _channels: &Self::Channels<S>, y: S::V) -> S::V {
        y
    }

    /// Adds the running sums to the block's.
    fn finish<S: Simd>(s: S, channels: Self::Channels<S>, sums: Sums<'_>);
}

/// Which outputs a pass stores. Winograd's passes alone pool, and outputs whose sides are even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stores {
    /// Every output.
    All,
    /// Of each 2x2 outputs the one that comes last by [`Epilogue::order`]: [`MaxPool`].
    Pooled,
    /// Every output, and those in an array of their own: [`AndExtremes`].
    Both,
}

/// One block's sums, at the channels of one vector.
#[derive(Debug)]
pub struct Sums<'a> {
    /// `[SUMS, row]`.
    values: &'a mut [f32],
    row: usize,
    channel: usize,
}

impl<'a> Sums<'a> {
    /// Sums `[SUMS, row]` at `channel`, whose whole vector must lie within a row.
    #[inline(always)]
    pub(crate) fn new(values: &'a mut [f32], row: usize, channel: usize) -> Self {
        Self { values, row, channel }
    }

    /// Adds `value` to the `sum`th sum.
    #[inline(always)]
    pub fn add<S: Simd>(&mut self, s: S, sum: usize, value: S::V) {
        let at = &mut self.values[sum * self.row + self.channel..][..S::LANES];
        // SAFETY: the slice has LANES floats.
        let before = unsafe { s.load(at.as_ptr()) };
        // SAFETY: the slice has LANES floats, borrowed for writing.
        unsafe { s.store(at.as_mut_ptr(), s.add(before, value)) };
    }

    /// The sums from the `sum`th on.
    #[inline(always)]
    fn from(self, sum: usize) -> Self {
        Self {
            values: &mut self.values[sum * self.row..],
            ..self
        }
    }
}

/// `values[at..at + lanes]`, the other lanes 0.
#[inline(always)]
pub(crate) fn load_channels<S: Simd>(s: S, values: &[f32], at: usize, lanes: usize) -> S::V {
    let values = &values[at..][..lanes];
    if lanes == S::LANES {
        // SAFETY: the slice has LANES floats.
        unsafe { s.load(values.as_ptr()) }
    } else {
        assert!(lanes < S::LANES, "expected at most a vector");
        // SAFETY: the slice has `lanes` floats, fewer than LANES by the assertion.
        unsafe { s.load_first(values.as_ptr(), lanes) }
    }
}
