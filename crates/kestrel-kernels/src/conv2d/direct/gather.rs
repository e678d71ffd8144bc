//! Gathers windows of an image into rows of consecutive floats, and gradients into panels.

use std::ops::Range;

use super::panel::Panels;
use super::phase::{Phase, Pixel, Run};
use crate::simd::{Kernel, Simd};

/// Copies depths `depth` of the windows of `pixels` to `rows[pixel * stride..]`; what lies outside the image is zero.
///
/// # Safety
/// - `source` is readable for the phase's source, and the pixels are the phase's.
/// - `rows` is writable for `pixels.len()` rows of `depth.len()` floats, `stride` apart, used by nobody else during the
///   call.
pub(super) unsafe fn gather_windows<S: Simd>(
    s: S,
    phase: &Phase,
    source: *const f32,
    pixels: &[Pixel],
    depth: Range<usize>,
    rows: *mut f32,
    stride: usize,
) {
    s.vectorize(Windows {
        phase,
        source,
        pixels,
        depth,
        rows,
        stride,
    });
}

/// Invariant: [`gather_windows`]'s conditions.
struct Windows<'a> {
    phase: &'a Phase,
    source: *const f32,
    pixels: &'a [Pixel],
    depth: Range<usize>,
    rows: *mut f32,
    stride: usize,
}

impl Kernel for Windows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for run in &self.phase.runs {
            let start = self.depth.start.max(run.depth.start);
            let end = self.depth.end.min(run.depth.end);
            if start < end {
                let target = self.rows.wrapping_add(start - self.depth.start);
                self.copy_run(s, run, start - run.depth.start..end - run.depth.start, target);
            }
        }
    }
}

impl Windows<'_> {
    /// Copies `floats` of a run for every pixel, to `target` and on.
    #[inline(always)]
    fn copy_run<S: Simd>(&self, s: S, run: &Run, floats: Range<usize>, mut target: *mut f32) {
        let [height, width, channels] = self.phase.source;
        for pixel in self.pixels {
            let (y, x) = (pixel.y + run.y, pixel.x + run.x);
            let first = (pixel.image as isize + y * width as isize + x) * channels as isize;
            if (0..height as isize).contains(&y) && x >= 0 && x + run.width as isize <= width as isize {
                let source = self.source.wrapping_offset(first + floats.start as isize);
                // SAFETY: row `y` and all columns of the run are inside the pixel's image; this row is writable for `floats`.
                unsafe { copy(s, source, target, floats.len()) };
                target = target.wrapping_add(self.stride);
                continue;
            }
            let inside = if (0..height as isize).contains(&y) {
                // Columns of the run that lie inside the image, in floats.
                let left = x.min(0).unsigned_abs().min(run.width);
                let right = (width as isize - x).clamp(left as isize, run.width as isize) as usize;
                (left * channels).clamp(floats.start, floats.end)..(right * channels).clamp(floats.start, floats.end)
            } else {
                floats.end..floats.end
            };
            let source = self.source.wrapping_offset(first + inside.start as isize);
            let [before, within, after] = [inside.start - floats.start, inside.len(), floats.end - inside.end];
            // SAFETY: the three parts make up `floats`, for which this row is writable.
            unsafe { zero(s, target, before) };
            // SAFETY: as above; row `y` and these columns of it are inside the pixel's image.
            unsafe { copy(s, source, target.wrapping_add(before), within) };
            // SAFETY: as above.
            unsafe { zero(s, target.wrapping_add(before + within), after) };
            target = target.wrapping_add(self.stride);
        }
    }
}

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
unsafe fn copy<S: Simd>(s: S, source: *const f32, target: *mut f32, len: usize) {
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
unsafe fn zero<S: Simd>(s: S, target: *mut f32, len: usize) {
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
