//! A function of a channel's elements run over a whole tensor `[..., C]`: the hooks of a convolution's outputs, by themselves.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use crate::conv2d::hooks::{Epilogue, Sums};
use crate::element;
use crate::simd::{self, Isa, Kernel, MAX_LANES, Simd};

/// Floats of a piece of work, about.
pub(super) const PIECE: usize = 1 << 15;
/// Pieces that a thread takes at once, at most: what is left of a larger share when the others are done, they cannot help with.
const AT_ONCE: usize = 4;
/// Pixels whose sums run in registers.
const RUN: usize = 64;

/// Replaces each element by the function of it; returns the sums, `[SUMS, channels]`.
pub(crate) fn in_place<E: Epilogue>(data: &mut [f32], channels: usize, epilogue: &E) -> Vec<f64> {
    // SAFETY: the function's values are initialised.
    let target = unsafe { element::to_be_written(data) };
    // SAFETY: the target is initialised.
    unsafe { run(None, target, channels, epilogue) }
}

/// The function of each element, and the sums.
pub(crate) fn map<E: Epilogue>(input: &[f32], channels: usize, epilogue: &E) -> (Vec<f32>, Vec<f64>) {
    let mut sums = Vec::new();
    let pass = |output: &mut [MaybeUninit<f32>]| {
        // SAFETY: there is a source.
        sums = unsafe { run(Some(input), output, channels, epilogue) };
    };
    // SAFETY: the pass writes every element.
    let output = unsafe { element::written(input.len(), pass) };
    (output, sums)
}

/// The sums alone.
pub(crate) fn sums<E: Epilogue>(input: &[f32], channels: usize, epilogue: &E) -> Vec<f64> {
    epilogue.check(channels, input.len());
    let pieces = input.par_chunks(piece(channels)).with_max_len(AT_ONCE).enumerate();
    let pieces = pieces.map(|(i, part)| {
        let piece = Piece {
            source: part.as_ptr(),
            target: None,
            new: 0,
            first: i * piece(channels),
            len: part.len(),
        };
        piece.run(channels, epilogue)
    });
    total::<E>(pieces.collect(), channels)
}

/// `target[i] = epilogue(source[i])`, or `epilogue(target[i])` without a source.
///
/// # Safety
/// Without a source, the target is initialised.
///
/// # Panics
/// If a source is not as long as the target.
unsafe fn run<E: Epilogue>(
    source: Option<&[f32]>,
    target: &mut [MaybeUninit<f32>],
    channels: usize,
    epilogue: &E,
) -> Vec<f64> {
    epilogue.check(channels, target.len());
    let len = target.len();
    assert!(
        source.is_none_or(|source| source.len() == len),
        "expected as many elements in as out"
    );
    let pieces = target.par_chunks_mut(piece(channels)).with_max_len(AT_ONCE).enumerate();
    let pieces = pieces.map(|(i, part)| {
        let first = i * piece(channels);
        let target: *mut f32 = part.as_mut_ptr().cast();
        let piece = Piece {
            // In place, both pointers are the one that the part alone has given.
            source: source.map_or(target.cast_const(), |source| source[first..].as_ptr()),
            target: Some(target),
            new: source.map_or(0, |_| len),
            first,
            len: part.len(),
        };
        piece.run(channels, epilogue)
    });
    total::<E>(pieces.collect(), channels)
}

/// Floats of a piece: whole pixels.
fn piece(channels: usize) -> usize {
    (PIECE / channels.max(1)).max(1) * channels.max(1)
}

/// Adds up the pieces' sums in order.
fn total<E: Epilogue>(pieces: Vec<Vec<f32>>, channels: usize) -> Vec<f64> {
    let mut totals = vec![0.0; E::SUMS * channels];
    if E::SUMS == 0 {
        return totals;
    }
    for piece in pieces {
        let row = piece.len() / E::SUMS;
        for (totals, sums) in totals.chunks_exact_mut(channels).zip(piece.chunks_exact(row)) {
            for (total, sum) in totals.iter_mut().zip(sums) {
                *total += f64::from(*sum);
            }
        }
    }
    totals
}

/// A part of a tensor. Invariant: `len` floats, whole pixels, are readable at `source` and writable at `target`, and
/// during the piece's life nobody else writes to the one or uses the other.
struct Piece {
    source: *const f32,
    target: Option<*mut f32>,
    /// Floats of the whole target, where it is not the source. What was just read is in the caches: it is not streamed back.
    new: usize,
    /// The place of the first float in the whole tensor.
    first: usize,
    len: usize,
}

impl Piece {
    /// The sums, `[SUMS, row]`.
    fn run<E: Epilogue>(self, channels: usize, epilogue: &E) -> Vec<f32> {
        let row = channels.next_multiple_of(MAX_LANES);
        let mut sums = vec![0.0; E::SUMS * row];
        Isa::current().dispatch(Driver(Pass {
            piece: self,
            channels,
            epilogue,
            sums: &mut sums,
            row,
        }));
        sums
    }
}

struct Driver<K>(K);

impl<K: Kernel> Kernel for Driver<K> {
    type Output = K::Output;

    fn run<S: Simd>(self, s: S) -> K::Output {
        s.vectorize(self.0)
    }
}

struct Pass<'a, E> {
    piece: Piece,
    channels: usize,
    epilogue: &'a E,
    sums: &'a mut [f32],
    row: usize,
}

impl<E: Epilogue> Kernel for Pass<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let target = self.piece.target.unwrap_or(std::ptr::null_mut());
        let streams = simd::streams::<S>(target, self.piece.new, self.channels);
        let pixels = self.piece.len / self.channels;
        for first in (0..pixels).step_by(RUN) {
            let run = first..pixels.min(first + RUN);
            let mut channel = 0;
            while channel + 4 * S::LANES <= self.channels {
                self.vectors::<S, 4>(s, run.clone(), channel, S::LANES, streams);
                channel += 4 * S::LANES;
            }
            while channel < self.channels {
                let lanes = S::LANES.min(self.channels - channel);
                self.vectors::<S, 1>(s, run.clone(), channel, lanes, streams);
                channel += S::LANES;
            }
        }
        if streams {
            s.fence();
        }
    }
}

impl<E: Epilogue> Pass<'_, E> {
    /// `N` vectors of channels from `channel` on; a single one may have fewer lanes. The target `streams` as
    /// [`simd::streams`] says.
    #[inline(always)]
    fn vectors<S: Simd, const N: usize>(
        &mut self,
        s: S,
        pixels: Range<usize>,
        channel: usize,
        lanes: usize,
        streams: bool,
    ) {
        let mut constants = [self.epilogue.channels(s, channel, lanes); N];
        for (i, constants) in constants.iter_mut().enumerate().skip(1) {
            *constants = self.epilogue.channels(s, channel + i * S::LANES, lanes);
        }
        for pixel in pixels {
            let at = pixel * self.channels + channel;
            for (i, constants) in constants.iter_mut().enumerate() {
                let at = at + i * S::LANES;
                let source = self.piece.source.wrapping_add(at);
                let value = if lanes == S::LANES {
                    // SAFETY: the piece's invariant: a whole vector of this pixel's channels is readable.
                    unsafe { s.load(source) }
                } else {
                    // SAFETY: as above, `lanes` of them.
                    unsafe { s.load_first(source, lanes) }
                };
                let value = self.epilogue.apply(s, constants, value, self.piece.first + at, lanes);
                let Some(target) = self.piece.target else { continue };
                let target = target.wrapping_add(at);
                if streams {
                    // SAFETY: a whole vector of this pixel's channels is writable; the target streams, and `channel` is a multiple
                    // of a vector.
                    unsafe { s.stream(target, value) };
                } else if lanes == S::LANES {
                    // SAFETY: the piece's invariant: a whole vector of this pixel's channels is writable.
                    unsafe { s.store(target, value) };
                } else {
                    // SAFETY: as above, `lanes` of them.
                    unsafe { s.store_first(target, value, lanes) };
                }
            }
        }
        for (i, constants) in constants.into_iter().enumerate() {
            E::finish(
                s,
                constants,
                Sums::new(&mut *self.sums, self.row, channel + i * S::LANES),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    //! Small enough for Miri, which judges the pointers.

    use super::*;
    use crate::conv2d::hooks::{Affine, Normalize, Statistics};

    /// One pixel and none, channels that are no whole vector, and several pieces.
    #[test]
    fn in_place_and_mapped_are_the_same() {
        for (pixels, channels) in [(0, 3), (1, 1), (3, 5), (5, 19), (3, PIECE / 2)] {
            let ramp = |scale: f32| move |i: usize| (i % 31) as f32 * scale - 1.0;
            let input: Vec<f32> = (0..pixels * channels).map(ramp(0.125)).collect();
            let [center, scale, shift] =
                [0.25, 0.5, 0.0625].map(|scale| (0..channels).map(ramp(scale)).collect::<Vec<f32>>());
            let epilogue = Normalize::<true>(Affine {
                center: &center,
                scale: &scale,
                shift: &shift,
            });
            let (mapped, _) = map(&input, channels, &epilogue);
            let mut replaced = input.clone();
            in_place(&mut replaced, channels, &epilogue);
            assert!(mapped == replaced, "{pixels} pixels of {channels} channels");
            for (i, got) in mapped.iter().enumerate() {
                let c = i % channels;
                // Products and sums of few bits: exact, in one rounding or two.
                let want = ((input[i] - center[c]) * scale[c] + shift[c]).max(0.0);
                assert_eq!(*got, want, "element {i} of {channels} channels");
            }
            let statistics = Statistics { center: &center };
            let sums = sums(&input, channels, &statistics);
            assert_eq!(sums, in_place(&mut input.clone(), channels, &statistics));
        }
    }
}
