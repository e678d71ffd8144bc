//! When an output is stored past the caches: when none would keep it till it is read.
//!
//! A plain store first reads the cache line that it is to change. An output larger than the cache leaves it again before
//! anybody reads it, so that reading was for nothing. Not here: the stores, which are [`Simd::stream`](super::Simd::stream).

use super::Simd;

/// Bytes from which on an output is streamed: more than a core's share of the last cache of most processors. In the CNN's
/// training step limits from 6 to 12 MB make no difference.
const LARGE: usize = 8 << 20;
/// Bytes of a cache line. Streamed in parts, a line would cost more than it saves.
const LINE: usize = 64;

/// Whether an output of `len` floats with rows of `channels` is to be streamed, vector by vector.
///
/// If so, every vector of a row that begins at a multiple of `LANES` channels is aligned as [`Simd::stream`] asks for.
pub(crate) fn streams<S: Simd>(target: *const f32, len: usize, channels: usize) -> bool {
    let vector = size_of::<f32>() * S::LANES;
    vector == LINE
        && size_of::<f32>() * len >= LARGE
        && channels.is_multiple_of(S::LANES)
        && target.addr().is_multiple_of(LINE)
}
