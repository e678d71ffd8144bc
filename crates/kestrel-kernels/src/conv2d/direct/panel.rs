//! Panels: how channels are laid out in the second factor of the products, and how weights get there and back.
//!
//! A panel is two vectors of channels wide; the last may be one. The lanes beyond the channels hold zeros.

use rayon::prelude::*;

use crate::simd::Simd;

/// Source channels whose weights are copied at a time: their rows of a panel stay in the nearest cache.
const CHANNELS_AT_ONCE: usize = 16;

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
pub(super) fn pack_weights(w: &[f32], steps: WeightSteps, taps: &[usize], panels: &Panels, target: &mut [f32]) {
    if taps.is_empty() {
        return;
    }
    let channels = panels.depth / taps.len();
    target
        .par_chunks_mut(panels.stride())
        .enumerate()
        .for_each(|(panel, target)| {
            let (width, used) = (panels.width(panel), panels.used(panel));
            if used < width {
                target.fill(0.0);
            }
            for first in (0..channels).step_by(CHANNELS_AT_ONCE) {
                let end = channels.min(first + CHANNELS_AT_ONCE);
                for lane in 0..used {
                    let w = &w[(panel * panels.full_width() + lane) * steps.lane..];
                    for channel in first..end {
                        let w = &w[channel * steps.channel..];
                        let mut at = channel * width + lane;
                        for &tap in taps {
                            target[at] = w[tap];
                            at += channels * width;
                        }
                    }
                }
            }
        });
}

/// Sums accumulators of the weights' gradient, in order, and copies them to `dw`, `[K, C, R, S]`.
///
/// `sums` holds accumulators laid out as `panels` over output channels, whose depth runs over the kernel's `taps`, then
/// input channels.
pub(super) fn unpack_gradients(sums: &[f32], taps: usize, panels: &Panels, dw: &mut [f32]) {
    let channels = panels.depth / taps;
    dw.par_chunks_mut(panels.full_width() * panels.depth)
        .enumerate()
        .for_each(|(panel, dw)| {
            let (width, used) = (panels.width(panel), panels.used(panel));
            for first in (0..channels).step_by(CHANNELS_AT_ONCE) {
                let end = channels.min(first + CHANNELS_AT_ONCE);
                for (group, sums) in sums.chunks_exact(panels.len()).enumerate() {
                    let sums = &sums[panel * panels.stride()..][..panels.stride()];
                    for lane in 0..used {
                        let dw = &mut dw[(lane * channels + first) * taps..][..(end - first) * taps];
                        for (channel, dw) in (first..end).zip(dw.chunks_exact_mut(taps)) {
                            let mut at = channel * width + lane;
                            for dw in dw {
                                *dw = if group == 0 { sums[at] } else { *dw + sums[at] };
                                at += channels * width;
                            }
                        }
                    }
                }
            }
        });
}
