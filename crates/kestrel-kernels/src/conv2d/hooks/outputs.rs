//! Functions of a convolution's outputs.

use super::{Epilogue, Stores, Sums, load_channels};
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
    const STORES: Stores = Stores::Pooled;
    type Channels<S: Simd> = E::Channels<S>;

    fn check(&self, k: usize, len: usize) {
        self.0.check(k, len);
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

/// What `epilogue` stores, and of each 2x2 of it, in an array of their own, the largest of a channel whose `sign` is 1, the smallest
/// where it is -1, a NaN where one is.
///
/// Of a function that rises with its argument in the first channels and falls in the others, these have the largest values.
#[derive(Clone, Copy, Debug)]
pub struct AndExtremes<'a, E> {
    /// What is stored of every output.
    pub epilogue: E,
    /// `[K]`, 1 or -1.
    pub sign: &'a [f32],
}

impl<E: Epilogue> Epilogue for AndExtremes<'_, E> {
    const SUMS: usize = E::SUMS;
    const STORES: Stores = Stores::Both;
    type Channels<S: Simd> = (E::Channels<S>, S::V);

    fn check(&self, k: usize, len: usize) {
        self.epilogue.check(k, len);
        assert_eq!(self.sign.len(), k, "expected a sign for each output channel");
    }

    #[inline(always)]
    fn channels<S: Simd>(&self, s: S, channel: usize, lanes: usize) -> Self::Channels<S> {
        (
            self.epilogue.channels(s, channel, lanes),
            load_channels(s, self.sign, channel, lanes),
        )
    }

    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, channels: &mut Self::Channels<S>, y: S::V, index: usize, lanes: usize) -> S::V {
        self.epilogue.apply(s, &mut channels.0, y, index, lanes)
    }

    #[inline(always)]
    fn order<S: Simd>(s: S, (_, sign): &Self::Channels<S>, y: S::V) -> S::V {
        s.mul(y, *sign)
    }

    #[inline(always)]
    fn finish<S: Simd>(s: S, channels: Self::Channels<S>, sums: Sums<'_>) {
        E::finish(s, channels.0, sums);
    }
}

/// `first`, then `second` of what `first` stores; the sums of `first`, then those of `second`. Neither pools.
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
        assert!(
            A::STORES == Stores::All && B::STORES == Stores::All,
            "pooling comes last"
        );
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
