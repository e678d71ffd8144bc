//! Gathers gradients into panels; copies of any length.

use std::ops::Range;

use super::panel::Panels;
use crate::simd::{Kernel, Simd};

/// Copies gradients of `len` pixels from `source`, whose rows hold all the panels' channels, to `target`, panel by panel:
/// `[panel, pixel, lane]`. Panels are `stride` floats apart.
///
/// # Safety
/// - `source` is readable for `len` rows of the panels' channels.
/// - `target` is writable for each of `range`'s panels, `stride` apart, which is at least `len` rows of a panel's width.
pub(super) unsafe fn gather_panels<S: Simd>(
    s: S,
    panels: Panels,
    range: Range<usize>,
    source: *const f32,
    len: usize,
    target: *mut f32,
    stride: usize,
) {
    s.vectorize(PanelRows {
        panels,
        range,
        source,
        len,
        target,
        stride,
    });
}

/// Invariant: [`gather_panels`]'s conditions.
struct PanelRows {
    panels: Panels,
    range: Range<usize>,
    source: *const f32,
    len: usize,
    target: *mut f32,
    stride: usize,
}

impl Kernel for PanelRows {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut panel_target = self.target;
        for panel in self.range.clone() {
            let (width, used) = (self.panels.width(panel), self.panels.used(panel));
            let mut source = self.source.wrapping_add(panel * self.panels.full_width());
            let mut target = panel_target;
            for _ in 0..self.len {
                // SAFETY: the row has `used` more channels from the panel's first on, and `width` floats are writable.
                unsafe { copy(s, source, target, used) };
                // SAFETY: the panel's row is `width >= used` floats.
                unsafe { zero(s, target.wrapping_add(used), width - used) };
                source = source.wrapping_add(self.panels.channels);
                target = target.wrapping_add(width);
            }
            panel_target = panel_target.wrapping_add(self.stride);
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
