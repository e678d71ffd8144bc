//! Transforms weights to panels, `U = G g Gᵀ`, and their accumulated gradients back, `dg = Gᵀ dU G`.

use std::slice::ChunksMut;

use rayon::prelude::*;

use super::panel::Panels;
use super::shape::PATCH;
use super::transform;
use crate::simd::{Kernel, MAX_LANES, Simd};

/// Taps of a kernel.
const TAPS: usize = 9;

/// Which of the two convolutions the weights are transformed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Panels over output channels, depth over input channels.
    Forward,
    /// Panels over input channels, depth over output channels, taps turned by half a turn.
    Backward,
}

/// Transforms `w`, `[K, C, 3, 3]`, to `u` in the layout of `panels`.
pub(super) fn transform_weights<S: Simd>(s: S, w: &[f32], direction: Direction, panels: Panels, u: &mut [f32]) {
    u.par_chunks_mut(panels.stride())
        .enumerate()
        .for_each(|(panel, u)| transform_weight_panel(s, w, direction, panels, panel, u));
}

/// Transforms one panel to `u`, its 36 planes.
pub(super) fn transform_weight_panel<S: Simd>(
    s: S,
    w: &[f32],
    direction: Direction,
    panels: Panels,
    panel: usize,
    u: &mut [f32],
) {
    // Floats from a channel of the panel to the next, and from a depth to the next.
    let (channel_step, depth_step) = match direction {
        Direction::Forward => (panels.depth * TAPS, TAPS),
        Direction::Backward => (TAPS, panels.channels * TAPS),
    };
    let w = &w[panel * panels.full_width() * channel_step..];
    s.vectorize(WeightPanel {
        w,
        channel_step,
        depth_step,
        direction,
        panels,
        panel,
        u,
    });
}

struct WeightPanel<'a> {
    /// From the panel's first channel on.
    w: &'a [f32],
    channel_step: usize,
    depth_step: usize,
    direction: Direction,
    panels: Panels,
    panel: usize,
    /// The panel's 36 planes.
    u: &'a mut [f32],
}

impl Kernel for WeightPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (width, used) = (self.panels.width(self.panel), self.panels.used(self.panel));
        for depth in 0..self.panels.depth {
            for first in (0..width).step_by(S::LANES) {
                let mut taps = [[0.0; MAX_LANES]; TAPS];
                for lane in first..used.min(first + S::LANES) {
                    let kernel = &self.w[lane * self.channel_step + depth * self.depth_step..][..TAPS];
                    for (tap, &value) in kernel.iter().enumerate() {
                        let tap = if self.direction == Direction::Forward {
                            tap
                        } else {
                            TAPS - 1 - tap
                        };
                        taps[tap][lane - first] = value;
                    }
                }
                let mut g = [s.zero(); TAPS];
                for (g, lanes) in g.iter_mut().zip(&taps) {
                    // SAFETY: each row of `taps` has MAX_LANES >= LANES floats.
                    *g = unsafe { s.load(lanes.as_ptr()) };
                }
                let mut columns = [[s.zero(); PATCH]; 3];
                for (x, column) in columns.iter_mut().enumerate() {
                    *column = transform::weight(s, [g[x], g[3 + x], g[6 + x]]);
                }
                for y in 0..PATCH {
                    let row = transform::weight(s, transform::across(&columns, y));
                    for (x, &value) in row.iter().enumerate() {
                        let at = (y * PATCH + x) * self.panels.plane() + depth * width + first;
                        let target = &mut self.u[at..][..S::LANES];
                        // SAFETY: the slice has LANES floats, borrowed for writing.
                        unsafe { s.store(target.as_mut_ptr(), value) };
                    }
                }
            }
        }
    }
}

/// Sums accumulators of the transformed weights' gradient, in order, and transforms them to `dw`, `[K, C, 3, 3]`.
///
/// `du` holds one or more accumulators, each laid out as `panels` over output channels with the input channels as depth.
pub(super) fn transform_weight_gradients<S: Simd>(s: S, du: &[f32], panels: Panels, dw: &mut [f32]) {
    let parts: Vec<_> = weight_gradient_panels(&panels, dw).enumerate().collect();
    parts.into_par_iter().for_each(|(panel, dw)| {
        transform_weight_gradient_panel(s, &du[panel * panels.stride()..], panels, panel, dw);
    });
}

/// The parts of `dw` that belong to each panel.
pub(super) fn weight_gradient_panels<'a>(panels: &Panels, dw: &'a mut [f32]) -> ChunksMut<'a, f32> {
    dw.chunks_mut(panels.full_width() * panels.depth * TAPS)
}

/// Transforms one panel to `dw`, its part of the weights' gradient. `du` starts with the panel's 36 planes of the first
/// accumulator; planes of further ones follow at distances of all panels' length.
pub(super) fn transform_weight_gradient_panel<S: Simd>(s: S, du: &[f32], panels: Panels, panel: usize, dw: &mut [f32]) {
    s.vectorize(GradientPanel { du, panels, panel, dw });
}

struct GradientPanel<'a> {
    /// From the panel's planes in the first accumulator on.
    du: &'a [f32],
    panels: Panels,
    panel: usize,
    /// `[used channels, C, 3, 3]`.
    dw: &'a mut [f32],
}

impl Kernel for GradientPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (width, used, plane) = (
            self.panels.width(self.panel),
            self.panels.used(self.panel),
            self.panels.plane(),
        );
        for depth in 0..self.panels.depth {
            for first in (0..width).step_by(S::LANES) {
                let mut columns = [[s.zero(); 3]; PATCH];
                for (x, column) in columns.iter_mut().enumerate() {
                    let mut points = [s.zero(); PATCH];
                    for (y, point) in points.iter_mut().enumerate() {
                        let mut at = (y * PATCH + x) * plane + depth * width + first;
                        while let Some(partial) = self.du.get(at..at + S::LANES) {
                            // SAFETY: the slice has LANES floats.
                            *point = s.add(*point, unsafe { s.load(partial.as_ptr()) });
                            at += self.panels.len();
                        }
                    }
                    *column = transform::weight_adjoint(s, points);
                }
                let mut taps = [[0.0; MAX_LANES]; TAPS];
                for y in 0..3 {
                    let row = transform::weight_adjoint(s, transform::across(&columns, y));
                    for (x, &value) in row.iter().enumerate() {
                        // SAFETY: a row of `taps` has MAX_LANES >= LANES floats.
                        unsafe { s.store(taps[3 * y + x].as_mut_ptr(), value) };
                    }
                }
                for lane in first..used.min(first + S::LANES) {
                    let kernel = &mut self.dw[(lane * self.panels.depth + depth) * TAPS..][..TAPS];
                    for (tap, value) in kernel.iter_mut().enumerate() {
                        *value = taps[tap][lane - first];
                    }
                }
            }
        }
    }
}
