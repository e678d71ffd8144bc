//! Gelu, and its backward after batch norm.

use super::affine::affine;
use super::{Affine, Epilogue, Sums, load_channels};
use crate::gelu::normal::{gelu, gelu_slope};
use crate::simd::Simd;

/// `y · Φ(y)`, as [`crate::gelu()`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Gelu;

impl Epilogue for Gelu {
    const SUMS: usize = 0;
    type Channels<S: Simd> = ();

    fn check(&self, _k: usize, _len: usize) {}

    #[inline(always)]
    fn channels<S: Simd>(&self, _s: S, _channel: usize, _lanes: usize) {}

    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, _channels: &mut (), y: S::V, _index: usize, _lanes: usize) -> S::V {
        gelu(s, y)
    }

    #[inline(always)]
    fn finish<S: Simd>(_s: S, _channels: (), _sums: Sums<'_>) {}
}

/// Backward through `z = gelu(affine(x))`: stores `g = y · gelu'(affine(x))`, and gathers `Σ g` and `Σ g (x − center)` of each
/// channel, as [`ReluMask`](super::ReluMask) does.
#[derive(Clone, Copy, Debug)]
pub struct ThroughGelu<'a> {
    /// What was normalised, laid out like the output.
    pub x: &'a [f32],
    /// By which it was normalised.
    pub affine: Affine<'a>,
}

impl Epilogue for ThroughGelu<'_> {
    const SUMS: usize = 2;
    type Channels<S: Simd> = ([S::V; 3], [S::V; 2]);

    fn check(&self, k: usize, len: usize) {
        self.affine.check(k);
        assert_eq!(self.x.len(), len, "expected an x for each output");
    }

    #[inline(always)]
    fn channels<S: Simd>(&self, s: S, channel: usize, lanes: usize) -> Self::Channels<S> {
        (self.affine.channels(s, channel, lanes), [s.zero(); 2])
    }

    #[inline(always)]
    fn apply<S: Simd>(
        &self,
        s: S,
        (constants, sums): &mut Self::Channels<S>,
        y: S::V,
        index: usize,
        lanes: usize,
    ) -> S::V {
        let x = load_channels(s, self.x, index, lanes);
        let g = s.mul(y, gelu_slope(s, affine(s, *constants, x)));
        *sums = [s.add(sums[0], g), s.mul_add(g, s.sub(x, constants[0]), sums[1])];
        g
    }

    #[inline(always)]
    fn finish<S: Simd>(s: S, (_, [sum, products]): Self::Channels<S>, mut sums: Sums<'_>) {
        sums.add(s, 0, sum);
        sums.add(s, 1, products);
    }
}
