//! Transforms weights to panels, `U = G g Gᵀ`, and their accumulated gradients back, `dg = Gᵀ dU G`.

use std::marker::PhantomData;

use rayon::prelude::*;

use super::panel::{Panels, Part};
use super::transform::{self, Adjoint, MOST_POINTS, Transform};
use crate::simd::{Kernel, MAX_LANES, Simd};

/// Taps of a kernel.
const TAPS: usize = 9;
/// Depths ahead of which kernels are asked for: those of a vector lie in too many places for the processor to foresee.
const PREFETCH_DEPTHS: usize = 8;

/// Which of the two convolutions the weights are transformed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Panels over output channels, depth over input channels.
    Forward,
    /// Panels over input channels, depth over output channels, taps turned by half a turn.
    Backward,
}

/// Transforms `w`, `[K, C, 3, 3]`, to `u` in the layout of `panels`.
pub(super) fn transform_weights<T: Transform, S: Simd>(
    s: S,
    w: &[f32],
    direction: Direction,
    panels: Panels,
    u: &mut [f32],
) {
    u.par_chunks_mut(panels.stride())
        .enumerate()
        .for_each(|(panel, u)| transform_weight_part::<T, S>(s, w, direction, panels, panels.whole(panel), u));
}

/// Transforms a part of a panel to `u`, its planes.
pub(super) fn transform_weight_part<T: Transform, S: Simd>(
    s: S,
    w: &[f32],
    direction: Direction,
    panels: Panels,
    part: Part,
    u: &mut [f32],
) {
    // Floats from a channel of the panel to the next, and from a depth to the next.
    let (channel_step, depth_step) = match direction {
        Direction::Forward => (panels.depth * TAPS, TAPS),
        Direction::Backward => (TAPS, panels.channels * TAPS),
    };
    let w = &w[part.panel * panels.full_width() * channel_step..];
    s.vectorize(WeightPart::<T> {
        transform: PhantomData,
        w,
        channel_step,
        depth_step,
        direction,
        panels,
        part,
        u,
    });
}

struct WeightPart<'a, T> {
    transform: PhantomData<T>,
    /// From the panel's first channel on.
    w: &'a [f32],
    channel_step: usize,
    depth_step: usize,
    direction: Direction,
    panels: Panels,
    part: Part,
    /// The part's planes.
    u: &'a mut [f32],
}

impl<T: Transform> Kernel for WeightPart<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (width, used) = (self.panels.width(self.part.panel), self.panels.used(self.part.panel));
        // One vector's kernels at a time: those of two fall into too few sets of the nearest cache.
        for first in (0..width).step_by(S::LANES) {
            for (row, depth) in self.part.depth.clone().enumerate() {
                let kernels = &self.w[first * self.channel_step + depth * self.depth_step..];
                prefetch_kernels(
                    s,
                    kernels.as_ptr().wrapping_add(PREFETCH_DEPTHS * self.depth_step),
                    self.channel_step,
                );
                let mut g = load_kernels(s, kernels, self.channel_step, used - first);
                if self.direction == Direction::Backward {
                    g.reverse();
                }
                let mut columns = [[s.zero(); MOST_POINTS]; 3];
                for (x, column) in columns.iter_mut().enumerate() {
                    *column = T::weight(s, [g[x], g[3 + x], g[6 + x]]);
                }
                for y in 0..T::PLANES {
                    let planes = T::weight(s, transform::across(&columns, y));
                    for (x, &value) in planes[..T::PLANES].iter().enumerate() {
                        let at = (y * T::PLANES + x) * self.part.plane + row * width + first;
                        let target = &mut self.u[at..][..S::LANES];
                        // SAFETY: the slice has LANES floats, borrowed for writing.
                        unsafe { s.store(target.as_mut_ptr(), value) };
                    }
                }
            }
        }
    }
}

/// Asks for a vector's kernels, which begin `step` floats apart.
#[inline(always)]
fn prefetch_kernels<S: Simd>(s: S, kernels: *const f32, step: usize) {
    for lane in 0..S::LANES {
        s.prefetch(kernels.wrapping_add(lane * step));
    }
}

/// The nine taps of the first `used` kernels, at most a vector, which begin `step` floats apart; 0 in the other lanes.
#[inline(always)]
fn load_kernels<S: Simd>(s: S, kernels: &[f32], step: usize, used: usize) -> [S::V; TAPS] {
    let used = used.min(S::LANES);
    let mut g = [s.zero(); TAPS];
    let first = if used == S::LANES {
        let kernels = &kernels[..(S::LANES - 1) * step + TAPS];
        // SAFETY: the slice holds nine floats of each lane's row.
        let taps = unsafe { s.load_transposed(kernels.as_ptr(), step) };
        g[..taps.len()].copy_from_slice(&taps);
        taps.len()
    } else {
        0
    };
    for (tap, g) in g.iter_mut().enumerate().skip(first) {
        let mut lanes = [0.0; MAX_LANES];
        for (lane, value) in lanes[..used].iter_mut().enumerate() {
            *value = kernels[lane * step + tap];
        }
        // SAFETY: the array holds MAX_LANES >= LANES floats.
        *g = unsafe { s.load(lanes.as_ptr()) };
    }
    g
}

/// Sums accumulators of the transformed weights' gradient, in order, and transforms them to `dw`, `[K, C, 3, 3]`.
///
/// `du` holds one or more accumulators, each laid out as `panels` over output channels with the input channels as depth.
pub(super) fn transform_weight_gradients<T: Adjoint, S: Simd>(s: S, du: &[f32], panels: Panels, dw: &mut [f32]) {
    dw.par_chunks_mut(weight_gradient_len(&panels))
        .enumerate()
        .for_each(|(panel, dw)| {
            transform_weight_gradient_part::<T, S>(s, &du[panel * panels.stride()..], panels, panels.whole(panel), dw);
        });
}

/// Floats of `dw` that belong to a panel; the last may have fewer.
pub(super) fn weight_gradient_len(panels: &Panels) -> usize {
    panels.full_width() * panels.depth * TAPS
}

/// Transforms a part of a panel to `dw`, that panel's part of the weights' gradient. `du` starts with the part's
/// planes of the first accumulator; planes of further ones follow at distances of all panels' length.
pub(super) fn transform_weight_gradient_part<T: Adjoint, S: Simd>(
    s: S,
    du: &[f32],
    panels: Panels,
    part: Part,
    dw: &mut [f32],
) {
    s.vectorize(GradientPart::<T> {
        transform: PhantomData,
        du,
        panels,
        part,
        dw,
    });
}

struct GradientPart<'a, T> {
    transform: PhantomData<T>,
    /// From the part's planes in the first accumulator on.
    du: &'a [f32],
    panels: Panels,
    part: Part,
    /// `[used channels, C, 3, 3]`.
    dw: &'a mut [f32],
}

impl<T: Adjoint> Kernel for GradientPart<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (width, used, plane) = (
            self.panels.width(self.part.panel),
            self.panels.used(self.part.panel),
            self.part.plane,
        );
        let step = self.panels.depth * TAPS;
        for first in (0..width).step_by(S::LANES) {
            for (row, depth) in self.part.depth.clone().enumerate() {
                let mut columns = [[s.zero(); 3]; MOST_POINTS];
                for (x, column) in columns[..T::POINTS].iter_mut().enumerate() {
                    let mut points = [s.zero(); MOST_POINTS];
                    for (y, point) in points[..T::POINTS].iter_mut().enumerate() {
                        let mut at = (y * T::POINTS + x) * plane + row * width + first;
                        while let Some(partial) = self.du.get(at..at + S::LANES) {
                            // SAFETY: the slice has LANES floats.
                            *point = s.add(*point, unsafe { s.load(partial.as_ptr()) });
                            at += self.panels.len();
                        }
                    }
                    *column = T::weight_adjoint(s, points);
                }
                let mut dg = [s.zero(); TAPS];
                for (y, dg) in dg.chunks_exact_mut(3).enumerate() {
                    dg.copy_from_slice(&T::weight_adjoint(s, transform::across(&columns, y)));
                }
                let kernels = &mut self.dw[first * step + depth * TAPS..];
                prefetch_kernels(s, kernels.as_ptr().wrapping_add(PREFETCH_DEPTHS * TAPS), step);
                store_kernels(s, kernels, step, used - first, dg);
            }
        }
    }
}

/// Writes the nine taps of the first `used` kernels, at most a vector, which begin `step` floats apart.
#[inline(always)]
fn store_kernels<S: Simd>(s: S, kernels: &mut [f32], step: usize, used: usize, taps: [S::V; TAPS]) {
    let used = used.min(S::LANES);
    let mut first = 0;
    if used == S::LANES {
        let mut columns = [s.zero(); 8];
        columns.copy_from_slice(&taps[..8]);
        let kernels = &mut kernels[..(S::LANES - 1) * step + TAPS];
        // SAFETY: the slice holds nine floats of each lane's row, borrowed for writing.
        unsafe { s.store_transposed(kernels.as_mut_ptr(), step, columns) };
        first = columns.len();
    }
    for (tap, &value) in taps.iter().enumerate().skip(first) {
        let mut lanes = [0.0; MAX_LANES];
        // SAFETY: the array holds MAX_LANES >= LANES floats.
        unsafe { s.store(lanes.as_mut_ptr(), value) };
        for (lane, &value) in lanes[..used].iter().enumerate() {
            kernels[lane * step + tap] = value;
        }
    }
}
