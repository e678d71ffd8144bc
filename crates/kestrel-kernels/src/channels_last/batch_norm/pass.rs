//! A function of a channel's elements run over a whole tensor `[..., C]`: the hooks of a convolution's outputs, by themselves.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use crate::conv2d::winograd::hooks::{Epilogue, Sums};
use crate::element;
use crate::simd::{self, Isa, Kernel, MAX_LANES, Simd};

/// Floats of a piece of work, about.
pub(super) const PIECE: usize = 1 << 15;
/// Pixels whose sums run in registers.
const RUN: usize = 64;

/// Replaces each element by the function of it; returns the sums, `[SUMS, channels]`.
pub(crate) fn in_place<E: Epilogue>(data: &mut [f32], channels: usize, epilogue: &E) -> Vec<f64> {
    let source = Pointer(data.as_mut_ptr());
    // SAFETY: the function's values are initialised.
    let target = unsafe { element::to_be_written(data) };
    run(source, target, 0, channels, epilogue)
}

/// The function of each element, and the sums.
pub(crate) fn map<E: Epilogue>(input: &[f32], channels: usize, epilogue: &E) -> (Vec<f32>, Vec<f64>) {
    let mut sums = Vec::new();
    let source = Pointer(input.as_ptr().cast_mut());
    // SAFETY: the pass writes every element.
    let output = unsafe {
        element::written(input.len(), |output| {
            sums = run(source, output, input.len(), channels, epilogue);
        })
    };
    (output, sums)
}

/// The sums alone.
pub(crate) fn sums<E: Epilogue>(input: &[f32], channels: usize, epilogue: &E) -> Vec<f64> {
    epilogue.check(channels, input.len());
    let pieces = input.par_chunks(piece(channels)).enumerate().map(|(i, part)| {
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

/// `target[i] = epilogue(source[i])`; the target is as long as the source, and is it or does not overlap it: then `new` is
/// its length, else 0.
fn run<E: Epilogue>(
    source: Pointer,
    target: &mut [MaybeUninit<f32>],
    new: usize,
    channels: usize,
    epilogue: &E,
) -> Vec<f64> {
    epilogue.check(channels, target.len());
    let pieces = target.par_chunks_mut(piece(channels)).enumerate().map(|(i, part)| {
        let first = i * piece(channels);
        let piece = Piece {
            source: source.get().wrapping_add(first).cast_const(),
            target: Some(part.as_mut_ptr().cast()),
            new,
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

/// The start of a tensor, shared among threads that each read their own part.
#[derive(Clone, Copy)]
struct Pointer(*mut f32);

// SAFETY: a pointer alone is harmless; every access through it has its own reasons.
unsafe impl Send for Pointer {}
// SAFETY: as above.
unsafe impl Sync for Pointer {}

impl Pointer {
    /// A method, so that closures capture the whole wrapper.
    fn get(self) -> *mut f32 {
        self.0
    }
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
