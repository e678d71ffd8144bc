//! What can be fused into a pass: a function of each input on load, and of each output before it is stored.
//!
//! Both are resolved at compile time; [`Identity`] and [`Store`] cost nothing. Other fusions (residual add, pooling)
//! are further implementations of the two traits.

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

/// `max(0, x * scale + shift)` for each channel: batch norm and ReLU of the layer before.
#[derive(Clone, Copy, Debug)]
pub struct AffineRelu<'a> {
    /// `[C]`.
    pub scale: &'a [f32],
    /// `[C]`.
    pub shift: &'a [f32],
}

impl OnLoad for AffineRelu<'_> {
    type Channels<S: Simd> = [S::V; 2];

    fn check(&self, c: usize) {
        assert_eq!(
            [self.scale.len(), self.shift.len()],
            [c, c],
            "expected a scale and a shift for each input channel"
        );
    }

    #[inline(always)]
    fn channels<S: Simd>(&self, s: S, channel: usize, lanes: usize) -> [S::V; 2] {
        [
            load_channels(s, self.scale, channel, lanes),
            load_channels(s, self.shift, channel, lanes),
        ]
    }

    #[inline(always)]
    fn apply<S: Simd>(s: S, [scale, shift]: [S::V; 2], x: S::V) -> S::V {
        s.max(s.mul_add(x, scale, shift), s.zero())
    }
}

/// A function of the outputs, applied before they are stored, and sums over each channel that it gathers on the way.
pub trait Epilogue: Sync {
    /// Sums gathered for each channel.
    const SUMS: usize;

    /// Constants and running sums for one vector of channels of one tile.
    type Channels<S: Simd>;

    /// Panics unless the function is for `k` channels and `len` outputs.
    fn check(&self, k: usize, len: usize);

    /// The constants of channels `channel..channel + lanes`, and sums of zero.
    fn channels<S: Simd>(&self, s: S, channel: usize, lanes: usize) -> Self::Channels<S>;

    /// What to store for `y`, the outputs at `index..index + lanes` of the flat output.
    fn apply<S: Simd>(&self, s: S, channels: &mut Self::Channels<S>, y: S::V, index: usize, lanes: usize) -> S::V;

    /// Adds the running sums to the block's.
    fn finish<S: Simd>(s: S, channels: Self::Channels<S>, sums: Sums<'_>);
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
    pub(in crate::conv2d) fn new(values: &'a mut [f32], row: usize, channel: usize) -> Self {
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

/// Gathers `Σ y` and `Σ y²` of each channel, batch norm's statistics; stores `y` as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics;

impl Epilogue for Statistics {
    const SUMS: usize = 2;
    type Channels<S: Simd> = [S::V; 2];

    fn check(&self, _k: usize, _len: usize) {}

    #[inline(always)]
    fn channels<S: Simd>(&self, s: S, _channel: usize, _lanes: usize) -> [S::V; 2] {
        [s.zero(); 2]
    }

    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, sums: &mut [S::V; 2], y: S::V, _index: usize, _lanes: usize) -> S::V {
        *sums = [s.add(sums[0], y), s.mul_add(y, y, sums[1])];
        y
    }

    #[inline(always)]
    fn finish<S: Simd>(s: S, [sum, squares]: [S::V; 2], mut sums: Sums<'_>) {
        sums.add(s, 0, sum);
        sums.add(s, 1, squares);
    }
}

/// Backward through `z = max(0, x * scale + shift)` of the layer before: stores `g = y where z > 0, else 0`, and gathers
/// `Σ g` and `Σ g x` of each channel, which is what the backward pass of its batch norm needs.
#[derive(Clone, Copy, Debug)]
pub struct ReluMask<'a> {
    /// What was normalised, laid out like the output.
    pub x: &'a [f32],
    /// `scale` and `shift`, `[K]` each.
    pub affine: AffineRelu<'a>,
}

impl Epilogue for ReluMask<'_> {
    const SUMS: usize = 2;
    type Channels<S: Simd> = [S::V; 4];

    fn check(&self, k: usize, len: usize) {
        self.affine.check(k);
        assert_eq!(self.x.len(), len, "expected an x for each output");
    }

    #[inline(always)]
    fn channels<S: Simd>(&self, s: S, channel: usize, lanes: usize) -> [S::V; 4] {
        let [scale, shift] = self.affine.channels(s, channel, lanes);
        [scale, shift, s.zero(), s.zero()]
    }

    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, channels: &mut [S::V; 4], y: S::V, index: usize, lanes: usize) -> S::V {
        let [scale, shift, sum, products] = *channels;
        let x = load_channels(s, self.x, index, lanes);
        let g = s.where_positive(s.mul_add(x, scale, shift), y);
        *channels = [scale, shift, s.add(sum, g), s.mul_add(g, x, products)];
        g
    }

    #[inline(always)]
    fn finish<S: Simd>(s: S, [_, _, sum, products]: [S::V; 4], mut sums: Sums<'_>) {
        sums.add(s, 0, sum);
        sums.add(s, 1, products);
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

/// `values[at..at + lanes]`, the other lanes 0.
#[inline(always)]
fn load_channels<S: Simd>(s: S, values: &[f32], at: usize, lanes: usize) -> S::V {
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
