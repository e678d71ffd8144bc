//! Functions of a convolution's outputs.

use super::{Epilogue, Sums, load_channels};
use crate::simd::Simd;

/// Outputs as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Store;

impl Epilogue for Store {
    const SUMS: usize = 0;
    type Channels<S: Simd> = ();

    fn check(&self, _k: usize, _len: usize) {}

    #[inline(always)]
    fn channels<S: Simd>(&self, _s: S, _channel: usize, _lanes: usize) {}

    #[inline(always)]
    fn apply<S: Simd>(&self, _s: S, _channels: &mut (), y: S::V, _index: usize, _lanes: usize) -> S::V {
        y
    }

    #[inline(always)]
    fn finish<S: Simd>(_s: S, _channels: (), _sums: Sums<'_>) {}
}

/// `y + bias` for each channel.
#[derive(Clone, Copy, Debug)]
pub struct Bias<'a> {
    /// `[K]`.
    pub bias: &'a [f32],
}

impl Epilogue for Bias<'_> {
    const SUMS: usize = 0;
    type Channels<S: Simd> = S::V;

    fn check(&self, k: usize, _len: usize) {
        assert_eq!(self.bias.len(), k, "expected a bias for each output channel");
    }

    #[inline(always)]
    fn channels<S: Simd>(&self, s: S, channel: usize, lanes: usize) -> S::V {
        load_channels(s, self.bias, channel, lanes)
    }

    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, bias: &mut S::V, y: S::V, _index: usize, _lanes: usize) -> S::V {
        s.add(y, *bias)
    }

    #[inline(always)]
    fn finish<S: Simd>(_s: S, _bias: S::V, _sums: Sums<'_>) {}
}

/// `first`, then `second` of what `first` stores; the sums of `first`, then those of `second`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Then<A, B> {
    /// Applied to the output.
    pub first: A,
    /// Applied to the result.
    pub second: B,
}

impl<A: Epilogue, B: Epilogue> Epilogue for Then<A, B> {
    const SUMS: usize = A::SUMS + B::SUMS;
    type Channels<S: Simd> = (A::Channels<S>, B::Channels<S>);

    fn check(&self, k: usize, len: usize) {
        self.first.check(k, len);
        self.second.check(k, len);
    }

    #[inline(always)]
    fn channels<S: Simd>(&self, s: S, channel: usize, lanes: usize) -> Self::Channels<S> {
        (
            self.first.channels(s, channel, lanes),
            self.second.channels(s, channel, lanes),
        )
    }

    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, channels: &mut Self::Channels<S>, y: S::V, index: usize, lanes: usize) -> S::V {
        let y = self.first.apply(s, &mut channels.0, y, index, lanes);
        self.second.apply(s, &mut channels.1, y, index, lanes)
    }

    #[inline(always)]
    fn finish<S: Simd>(s: S, channels: Self::Channels<S>, sums: Sums<'_>) {
        A::finish(s, channels.0, Sums::new(&mut *sums.values, sums.row, sums.channel));
        B::finish(s, channels.1, sums.from(A::SUMS));
    }
}
