//! Gathers gradients into panels; copies of any length.

use std::ops::Range;

use super::panel::Panels;
use crate::conv2d::hooks::{Epilogue, load_channels};
use crate::simd::{Kernel, Simd};

/// Where gradients go, panel by panel: `[panel, pixel, lane]`. Panels are `stride` floats apart.
#[derive(Clone, Debug)]
pub(super) struct PanelTarget {
    pub(super) panels: Panels,
    /// Which of the panels.
    pub(super) range: Range<usize>,
    pub(super) target: *mut f32,
    pub(super) stride: usize,
}

/// The gradients of the output. The pass knows them as this, so that it is compiled once for all hooks.
pub(super) trait Gradients: Sync {
    /// Gathers those of `len` pixels from pixel `first` on.
    ///
    /// # Safety
    /// - There are as many pixels, of the target's panels' channels.
    /// - The target is writable for each panel of the range, `stride` apart, which is at least `len` rows of a panel's width.
    unsafe fn gather(&self, first: usize, len: usize, target: PanelTarget);

    /// Where they lie, from the `index`th float on.
    fn at(&self, index: usize) -> *const f32;
}

/// `load(dy)`.
pub(super) struct Gathered<'a, S, E> {
    pub(super) s: S,
    pub(super) dy: &'a [f32],
    pub(super) load: &'a E,
}

impl<S: Simd, E: Epilogue> Gradients for Gathered<'_, S, E> {
    unsafe fn gather(&self, first: usize, len: usize, target: PanelTarget) {
        let first = first * target.panels.channels;
        self.s.vectorize(PanelRows {
            dy: &self.dy[first..][..len * target.panels.channels],
            first,
            load: self.load,
            target,
        });
    }

    fn at(&self, index: usize) -> *const f32 {
        self.dy[index..].as_ptr()
    }
}

/// Invariant: [`Gradients::gather`]'s conditions on the target, for whole pixels `dy`.
struct PanelRows<'a, E> {
    dy: &'a [f32],
    /// The place of the first float in the whole gradient.
    first: usize,
    load: &'a E,
    target: PanelTarget,
}

impl<E: Epilogue> Kernel for PanelRows<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let PanelTarget {
            panels,
            range,
            target,
            stride,
        } = self.target;
        // Pixel by pixel, in the order of memory: the constants are in the first cache, the pixels may come from afar.
        for (pixel, dy) in self.dy.chunks_exact(panels.channels).enumerate() {
            for panel in range.clone() {
                let (width, used) = (panels.width(panel), panels.used(panel));
                let row = target.wrapping_add((panel - range.start) * stride + pixel * width);
                for lane in (0..used).step_by(S::LANES) {
                    let lanes = (used - lane).min(S::LANES);
                    let channel = panel * panels.full_width() + lane;
                    let mut constants = self.load.channels(s, channel, lanes);
                    let value = load_channels(s, dy, channel, lanes);
                    let index = self.first + pixel * panels.channels + channel;
                    let value = self.load.apply(s, &mut constants, value, index, lanes);
                    let target = row.wrapping_add(lane);
                    if lanes == S::LANES {
                        // SAFETY: a panel's row is whole vectors, and writable.
                        unsafe { s.store(target, value) };
                    } else {
                        // SAFETY: as above; `lanes` of them.
                        unsafe { s.store_first(target, value, lanes) };
                        // The lanes beyond the channels hold zeros, whatever the function makes of them.
                        // SAFETY: as above; the rest of them.
                        unsafe { zero(s, target.wrapping_add(lanes), S::LANES - lanes) };
                    }
                }
            }
        }
    }
}

/// Copies `len` floats.
///
/// # Safety
/// `len` floats at `source` are readable, `len` at `target` writable, and the two do not overlap.
#[inline(always)]
pub(super) unsafe fn copy<S: Simd>(s: S, source: *const f32, target: *mut f32, len: usize) {
    if len < S::LANES {
        // SAFETY: less than a vector, as the caller promises.
        let value = unsafe { s.load_first(source, len) };
        // SAFETY: as above.
        unsafe { s.store_first(target, value, len) };
        return;
    }
    let mut at = 0;
    loop {
        // SAFETY: `at + LANES <= len`.
        let value = unsafe { s.load(source.wrapping_add(at)) };
        // SAFETY: as above.
        unsafe { s.store(target.wrapping_add(at), value) };
        if at + S::LANES == len {
            return;
        }
        // The last vector overlaps the one before.
        at = (at + S::LANES).min(len - S::LANES);
    }
}

/// Sets `len` floats to zero.
///
/// # Safety
/// `len` floats at `target` are writable.
#[inline(always)]
pub(super) unsafe fn zero<S: Simd>(s: S, target: *mut f32, len: usize) {
    let mut at = 0;
    while at + S::LANES <= len {
        // SAFETY: `at + LANES <= len`.
        unsafe { s.store(target.wrapping_add(at), s.zero()) };
        at += S::LANES;
    }
    if at < len {
        // SAFETY: less than a vector is left.
        unsafe { s.store_first(target.wrapping_add(at), s.zero(), len - at) };
    }
}
