//! Batch norm's sums, and the steps of its backward.

use super::affine::affine;
use super::{Affine, Epilogue, Sums, load_channels};
use crate::simd::Simd;

/// Gathers `Σ (y − center)` and `Σ (y − center)²` of each channel, batch norm's statistics; stores `y` as it is.
///
/// The nearer the center is to the mean, the fewer digits the difference of the two costs.
#[derive(Clone, Copy, Debug)]
pub struct Statistics<'a> {
    /// `[K]`.
    pub center: &'a [f32],
}

impl Epilogue for Statistics<'_> {
    const SUMS: usize = 2;
    type Channels<S: Simd> = [S::V; 3];

    fn check(&self, k: usize, _len: usize) {
        assert_eq!(self.center.len(), k, "expected a center for each channel");
    }

    #[inline(always)]
    fn channels<S: Simd>(&self, s: S, channel: usize, lanes: usize) -> [S::V; 3] {
        [load_channels(s, self.center, channel, lanes), s.zero(), s.zero()]
    }

    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, channels: &mut [S::V; 3], y: S::V, _index: usize, _lanes: usize) -> S::V {
        let [center, sum, squares] = *channels;
        let centered = s.sub(y, center);
        *channels = [center, s.add(sum, centered), s.mul_add(centered, centered, squares)];
        y
    }

    #[inline(always)]
    fn finish<S: Simd>(s: S, [_, sum, squares]: [S::V; 3], mut sums: Sums<'_>) {
        sums.add(s, 0, sum);
        sums.add(s, 1, squares);
    }
}

/// Backward through `z = max(0, affine(x))`, or without the maximum: stores `g = 0 where affine(x) <= 0, else y`, and
/// gathers `Σ g` and `Σ g (x − center)` of each channel, which is what the backward pass of its batch norm needs.
#[derive(Clone, Copy, Debug)]
pub struct ReluMask<'a, const RELU: bool> {
    /// What was normalised, laid out like the output.
    pub x: &'a [f32],
    /// By which it was normalised.
    pub affine: Affine<'a>,
}

impl<const RELU: bool> Epilogue for ReluMask<'_, RELU> {
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
        let g = if RELU { s.gated(affine(s, *constants, x), y) } else { y };
        *sums = [s.add(sums[0], g), s.mul_add(g, s.sub(x, constants[0]), sums[1])];
        g
    }

    #[inline(always)]
    fn finish<S: Simd>(s: S, (_, [sum, products]): Self::Channels<S>, mut sums: Sums<'_>) {
        sums.add(s, 0, sum);
        sums.add(s, 1, products);
    }
}

/// Backward through `out = max(0, affine(x) + residual)`: stores `g = 0 where out <= 0, else y`, and gathers `Σ g`,
/// `Σ g (x − center)` and, with a normalised residual `r`, `Σ g (r − center)`.
#[derive(Clone, Copy, Debug)]
pub struct OutputMask<'a> {
    /// The result of the forward, laid out like the gradient `y`, as are the others.
    pub out: &'a [f32],
    /// What was normalised, and its center `[K]`.
    pub x: (&'a [f32], &'a [f32]),
    /// What the residual was normalised from, and its center.
    pub residual: Option<(&'a [f32], &'a [f32])>,
}

impl Epilogue for OutputMask<'_> {
    const SUMS: usize = 3;
    /// Centers, and sums.
    type Channels<S: Simd> = ([S::V; 2], [S::V; 3]);

    fn check(&self, k: usize, len: usize) {
        assert_eq!(self.out.len(), len, "expected an output for each gradient");
        for (x, center) in [Some(self.x), self.residual].into_iter().flatten() {
            assert_eq!(
                [x.len(), center.len()],
                [len, k],
                "expected an x for each gradient, a center by channel"
            );
        }
    }

    #[inline(always)]
    fn channels<S: Simd>(&self, s: S, channel: usize, lanes: usize) -> Self::Channels<S> {
        let center = load_channels(s, self.x.1, channel, lanes);
        let residual = match self.residual {
            Some((_, center)) => load_channels(s, center, channel, lanes),
            None => s.zero(),
        };
        ([center, residual], [s.zero(); 3])
    }

    #[inline(always)]
    fn apply<S: Simd>(
        &self,
        s: S,
        (centers, sums): &mut Self::Channels<S>,
        y: S::V,
        index: usize,
        lanes: usize,
    ) -> S::V {
        let g = s.gated(load_channels(s, self.out, index, lanes), y);
        let centered = s.sub(load_channels(s, self.x.0, index, lanes), centers[0]);
        sums[0] = s.add(sums[0], g);
        sums[1] = s.mul_add(g, centered, sums[1]);
        if let Some((residual, _)) = self.residual {
            let centered = s.sub(load_channels(s, residual, index, lanes), centers[1]);
            sums[2] = s.mul_add(g, centered, sums[2]);
        }
        g
    }

    #[inline(always)]
    fn finish<S: Simd>(s: S, (_, values): Self::Channels<S>, mut sums: Sums<'_>) {
        for (sum, value) in values.into_iter().enumerate() {
            sums.add(s, sum, value);
        }
    }
}

/// Backward through batch norm's own statistics: `scale · g − (x − center) · slope − offset` of each gated gradient `g`.
#[derive(Clone, Copy, Debug)]
pub struct ThroughStatistics<'a> {
    /// What was normalised, laid out like the gradient.
    pub x: &'a [f32],
    /// `[K]`, as the others.
    pub center: &'a [f32],
    /// By which the gradient is multiplied.
    pub scale: &'a [f32],
    /// What the variance passes on.
    pub slope: &'a [f32],
    /// What the mean passes on.
    pub offset: &'a [f32],
}

/// `scale · g − centered · slope − offset`.
#[inline(always)]
pub(crate) fn through_statistics<S: Simd>(s: S, [scale, slope, offset]: [S::V; 3], g: S::V, centered: S::V) -> S::V {
    s.neg_mul_add(centered, slope, s.sub(s.mul(g, scale), offset))
}

impl Epilogue for ThroughStatistics<'_> {
    const SUMS: usize = 0;
    type Channels<S: Simd> = [S::V; 4];

    fn check(&self, k: usize, len: usize) {
        let lens = [self.center, self.scale, self.slope, self.offset].map(<[f32]>::len);
        assert_eq!(lens, [k; 4], "expected four constants for each channel");
        assert_eq!(self.x.len(), len, "expected an x for each gradient");
    }

    #[inline(always)]
    fn channels<S: Simd>(&self, s: S, channel: usize, lanes: usize) -> [S::V; 4] {
        [
            load_channels(s, self.center, channel, lanes),
            load_channels(s, self.scale, channel, lanes),
            load_channels(s, self.slope, channel, lanes),
            load_channels(s, self.offset, channel, lanes),
        ]
    }

    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, channels: &mut [S::V; 4], g: S::V, index: usize, lanes: usize) -> S::V {
        let [center, constants @ ..] = *channels;
        let centered = s.sub(load_channels(s, self.x, index, lanes), center);
        through_statistics(s, constants, g, centered)
    }

    #[inline(always)]
    fn finish<S: Simd>(_s: S, _channels: [S::V; 4], _sums: Sums<'_>) {}
}
