//! Panels: how channels are laid out in the second factor of the products, and how weights get there and back.
//!
//! A panel is two vectors of channels wide; the last may be one. The lanes beyond the channels hold zeros.

use rayon::prelude::*;

use crate::conv2d::workspace::LINE;
use crate::simd::{Kernel, MAX_LANES, Simd};

/// Source channels whose weights are copied at a time: their rows of a panel stay in the nearest cache.
const CHANNELS_AT_ONCE: usize = 16;
/// Weights of one output channel whose gradients are copied at a time.
const WEIGHTS_AT_ONCE: usize = 144;

/// The layout of `channels` channels as `[panel, depth, lane]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels {
    /// Channels, without the lanes that fill the last vector.
    pub(super) channels: usize,
    /// Rows of a panel.
    pub(super) depth: usize,
    lanes: usize,
}

/// Where weights of `[K, C, R, S]` lie for a pass whose panels are over one of its channels: floats from a lane of a panel
/// to the next, and from a channel of the depth to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct WeightSteps {
    pub(super) lane: usize,
    pub(super) channel: usize,
}

impl Panels {
    pub(super) fn new<S: Simd>(_s: S, channels: usize, depth: usize) -> Self {
        Self {
            channels,
            depth,
            lanes: S::LANES,
        }
    }

    /// Channels in a full panel.
    pub(super) fn full_width(&self) -> usize {
        2 * self.lanes
    }

    pub(super) fn count(&self) -> usize {
        self.channels.div_ceil(self.full_width())
    }

    /// Lanes of a row of `panel`: two vectors, or one.
    pub(super) fn width(&self, panel: usize) -> usize {
        let padded = self.channels.next_multiple_of(self.lanes);
        self.full_width().min(padded - panel * self.full_width())
    }

    /// Channels of `panel`, without filling lanes.
    pub(super) fn used(&self, panel: usize) -> usize {
        self.full_width().min(self.channels - panel * self.full_width())
    }

    /// Floats from a panel to the next.
    pub(super) fn stride(&self) -> usize {
        self.depth * self.full_width()
    }

    /// Floats of all panels.
    pub(super) fn len(&self) -> usize {
        self.count() * self.stride()
    }
}

/// Copies `w` to `target` in the layout of `panels`, whose depth runs over `taps`, then channels.
pub(super) fn pack_weights<S: Simd>(
    s: S,
    w: &[f32],
    steps: WeightSteps,
    taps: &[usize],
    panels: &Panels,
    target: &mut [f32],
) {
    if taps.is_empty() {
        return;
    }
    target
        .par_chunks_mut(panels.stride())
        .enumerate()
        .for_each(|(panel, target)| {
            s.vectorize(Pack {
                w: &w[panel * panels.full_width() * steps.lane..],
                steps,
                taps,
                panels,
                panel,
                target,
            });
        });
}

/// One panel of weights.
struct Pack<'a> {
    /// From the panel's first lane on.
    w: &'a [f32],
    steps: WeightSteps,
    taps: &'a [usize],
    panels: &'a Panels,
    panel: usize,
    target: &'a mut [f32],
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (width, used) = (self.panels.width(self.panel), self.panels.used(self.panel));
        let channels = self.panels.depth / self.taps.len();
        for first in (0..channels).step_by(CHANNELS_AT_ONCE) {
            let end = channels.min(first + CHANNELS_AT_ONCE);
            // Weights of other lanes or channels lie far apart, which no hardware foresees.
            for next in (end..channels.min(end + CHANNELS_AT_ONCE)).step_by(every(self.steps.channel)) {
                for lane in (0..used).step_by(every(self.steps.lane)) {
                    s.prefetch(self.w[lane * self.steps.lane + next * self.steps.channel..].as_ptr());
                }
            }
            for lane in (0..width).step_by(S::LANES) {
                let lanes = S::LANES.min(used - lane);
                for (place, tap) in self.taps.iter().enumerate() {
                    let rows = &mut self.target[(place * channels + first) * width..][..(end - first) * width];
                    for (channel, row) in (first..end).zip(rows.chunks_exact_mut(width)) {
                        let w = &self.w[lane * self.steps.lane + channel * self.steps.channel + tap..];
                        copy_strided(w, self.steps.lane, lanes, &mut row[lane..][..S::LANES]);
                    }
                }
            }
        }
    }
}

/// How many steps of `step` floats lead to another cache line, at least one.
#[inline(always)]
fn every(step: usize) -> usize {
    (LINE / step).max(1)
}

/// Copies `w[0]`, `w[step]`, ... to the first `lanes` of `row`, at most all; the others become 0.
#[inline(always)]
fn copy_strided(w: &[f32], step: usize, lanes: usize, row: &mut [f32]) {
    if step == 1 && lanes == row.len() {
        row.copy_from_slice(&w[..lanes]);
    } else if lanes == row.len() {
        assert!((lanes - 1) * step < w.len(), "expected a weight for each lane");
        for (i, value) in row.iter_mut().enumerate() {
            // SAFETY: `i * step` is at most `(lanes - 1) * step`, which is within the slice by the assertion.
            *value = unsafe { *w.get_unchecked(i * step) };
        }
    } else {
        row.fill(0.0);
        for (i, value) in row[..lanes].iter_mut().enumerate() {
            *value = w[i * step];
        }
    }
}

/// Sums accumulators of the weights' gradient, in order, and copies them to `dw`, `[K, C, R, S]`.
///
/// `sums` holds accumulators laid out as `panels` over output channels, whose depth runs over the kernel's `taps`, then
/// input channels.
pub(super) fn unpack_gradients<S: Simd>(s: S, sums: &[f32], taps: usize, panels: &Panels, dw: &mut [f32]) {
    dw.par_chunks_mut(panels.full_width() * panels.depth)
        .enumerate()
        .for_each(|(panel, dw)| {
            s.vectorize(Unpack {
                sums,
                taps,
                panels,
                panel,
                dw,
            });
        });
}

/// One panel of gradients.
struct Unpack<'a> {
    sums: &'a [f32],
    taps: usize,
    panels: &'a Panels,
    panel: usize,
    /// `[used channels, C, R, S]`.
    dw: &'a mut [f32],
}

impl Kernel for Unpack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Panels { depth, .. } = *self.panels;
        let (width, used) = (self.panels.width(self.panel), self.panels.used(self.panel));
        let channels = depth / self.taps;
        let mut block = [[0.0; MAX_LANES]; WEIGHTS_AT_ONCE];
        for first in (0..depth).step_by(WEIGHTS_AT_ONCE) {
            let len = WEIGHTS_AT_ONCE.min(depth - first);
            for lane in (0..width).step_by(S::LANES) {
                let mut place = (first % self.taps, first / self.taps);
                for lanes in &mut block[..len] {
                    let at = self.panel * self.panels.stride() + (place.0 * channels + place.1) * width + lane;
                    place.0 += 1;
                    if place.0 == self.taps {
                        place = (0, place.1 + 1);
                    }
                    let mut total = s.zero();
                    for sums in self.sums.chunks_exact(self.panels.len()) {
                        let sums = &sums[at..][..S::LANES];
                        // SAFETY: the slice has LANES floats.
                        total = s.add(total, unsafe { s.load(sums.as_ptr()) });
                    }
                    // SAFETY: the array has MAX_LANES >= LANES floats.
                    unsafe { s.store(lanes.as_mut_ptr(), total) };
                }
                for i in 0..S::LANES.min(used - lane) {
                    let dw = &mut self.dw[(lane + i) * depth + first..][..len];
                    for (dw, lanes) in dw.iter_mut().zip(&block) {
                        *dw = lanes[i];
                    }
                }
            }
        }
    }
}
