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

/// The largest of each 2x2 of what an epilogue makes of the outputs, a NaN where one is: `torch.nn.functional.max_pool2d(y, 2)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MaxPool<E>(pub E);

impl<E: Epilogue> Epilogue for MaxPool<E> {
    const SUMS: usize = E::SUMS;
    const POOLS: bool = true;
    type Channels<S: Simd> = E::Channels<S>;

    fn check(&self, k: usize, len: usize) {
        self.0.check(k, 4 * len);
    }

    #[inline(always)]
    fn channels<S: Simd>(&self, s: S, channel: usize, lanes: usize) -> Self::Channels<S> {
        self.0.channels(s, channel, lanes)
    }

    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, channels: &mut Self::Channels<S>, y: S::V, index: usize, lanes: usize) -> S::V {
        self.0.apply(s, channels, y, index, lanes)
    }

    #[inline(always)]
    fn finish<S: Simd>(s: S, channels: Self::Channels<S>, sums: Sums<'_>) {
        E::finish(s, channels, sums);
    }
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
    const POOLS: bool = A::POOLS || B::POOLS;
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
