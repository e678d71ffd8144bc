//! Functions of a channel's elements that need no sums: batch norm applied, with or without relu.

use super::{Epilogue, OnLoad, Sums, load_channels};
use crate::simd::Simd;

/// Inputs as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl OnLoad for Identity {
    type Channels<S: Simd> = ();

    fn check(&self, _c: usize) {}

    #[inline(always)]
    fn channels<S: Simd>(&self, _s: S, _channel: usize, _lanes: usize) {}

    #[inline(always)]
    fn apply<S: Simd>(_s: S, _channels: (), x: S::V) -> S::V {
        x
    }
}

/// `(x − center) · scale + shift` for each channel.
///
/// The subtraction comes first, so that a large mean costs no digits.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// `[C]`.
    pub center: &'a [f32],
    /// `[C]`.
    pub scale: &'a [f32],
    /// `[C]`.
    pub shift: &'a [f32],
}

impl Affine<'_> {
    pub(crate) fn check(&self, c: usize) {
        assert_eq!(
            [self.center.len(), self.scale.len(), self.shift.len()],
            [c; 3],
            "expected a center, a scale and a shift for each channel"
        );
    }

    #[inline(always)]
    pub(crate) fn channels<S: Simd>(&self, s: S, channel: usize, lanes: usize) -> [S::V; 3] {
        // Written out, as in all code that runs on vectors: a closure that an array's `map` calls may not be inlined, and is
        // then compiled without the instruction set.
        [
            load_channels(s, self.center, channel, lanes),
            load_channels(s, self.scale, channel, lanes),
            load_channels(s, self.shift, channel, lanes),
        ]
    }
}

/// `(x − center) · scale + shift`.
#[inline(always)]
pub(super) fn affine<S: Simd>(s: S, [center, scale, shift]: [S::V; 3], x: S::V) -> S::V {
    s.mul_add(s.sub(x, center), scale, shift)
}

/// `max(0, x)`; NaN stays NaN.
#[inline(always)]
pub(super) fn relu<S: Simd>(s: S, x: S::V) -> S::V {
    s.max(s.zero(), x)
}

/// `max(0, (x − center) · scale + shift)` for each channel: batch norm and ReLU of the layer before.
#[derive(Clone, Copy, Debug)]
pub struct AffineRelu<'a>(pub Affine<'a>);

impl OnLoad for AffineRelu<'_> {
    type Channels<S: Simd> = [S::V; 3];

    fn check(&self, c: usize) {
        self.0.check(c);
    }

    #[inline(always)]
    fn channels<S: Simd>(&self, s: S, channel: usize, lanes: usize) -> [S::V; 3] {
        self.0.channels(s, channel, lanes)
    }

    #[inline(always)]
    fn apply<S: Simd>(s: S, channels: [S::V; 3], x: S::V) -> S::V {
        relu(s, affine(s, channels, x))
    }
}

/// Batch norm, and perhaps relu, of each element.
#[derive(Clone, Copy, Debug)]
pub struct Normalize<'a, const RELU: bool>(pub Affine<'a>);

impl<const RELU: bool> Epilogue for Normalize<'_, RELU> {
    const SUMS: usize = 0;
    type Channels<S: Simd> = [S::V; 3];

    fn check(&self, k: usize, _len: usize) {
        self.0.check(k);
    }

    #[inline(always)]
    fn channels<S: Simd>(&self, s: S, channel: usize, lanes: usize) -> [S::V; 3] {
        self.0.channels(s, channel, lanes)
    }

    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, channels: &mut [S::V; 3], x: S::V, _index: usize, _lanes: usize) -> S::V {
        let y = affine(s, *channels, x);
        if RELU { relu(s, y) } else { y }
    }

    #[inline(always)]
    fn finish<S: Simd>(_s: S, _channels: [S::V; 3], _sums: Sums<'_>) {}
}

/// The end of a residual block: `max(0, affine(x) + residual)`, the residual perhaps normalised too.
#[derive(Clone, Copy, Debug)]
pub struct NormalizeAddRelu<'a> {
    /// Applied to each element.
    pub affine: Affine<'a>,
    /// What is added, laid out like the elements.
    pub residual: &'a [f32],
    /// Applied to the residual.
    pub residual_affine: Option<Affine<'a>>,
}

impl Epilogue for NormalizeAddRelu<'_> {
    const SUMS: usize = 0;
    type Channels<S: Simd> = ([S::V; 3], Option<[S::V; 3]>);

    fn check(&self, k: usize, len: usize) {
        self.affine.check(k);
        if let Some(affine) = &self.residual_affine {
            affine.check(k);
        }
        assert_eq!(self.residual.len(), len, "expected a residual for each element");
    }

    #[inline(always)]
    fn channels<S: Simd>(&self, s: S, channel: usize, lanes: usize) -> Self::Channels<S> {
        #[allow(clippy::manual_map, reason = "its closure might not be inlined")]
        let residual = match &self.residual_affine {
            Some(affine) => Some(affine.channels(s, channel, lanes)),
            None => None,
        };
        (self.affine.channels(s, channel, lanes), residual)
    }

    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, channels: &mut Self::Channels<S>, x: S::V, index: usize, lanes: usize) -> S::V {
        let mut residual = load_channels(s, self.residual, index, lanes);
        if let Some(channels) = channels.1 {
            residual = affine(s, channels, residual);
        }
        relu(s, s.add(affine(s, channels.0, x), residual))
    }

    #[inline(always)]
    fn finish<S: Simd>(_s: S, _channels: Self::Channels<S>, _sums: Sums<'_>) {}
}
