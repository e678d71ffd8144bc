//! The backward pass to the data of images of few channels, as a first layer's: an output pixel's gradients times the weights are
//! its window's gradients, which are added to the image.
//!
//! The dense correlation of the other shapes would compute whole vectors of channels and keep three lanes of them. Here the taps'
//! channels lie side by side in the vectors, and a row of taps is a row of the image.

use std::ops::Range;

use super::DataGradient;
use super::panel::Panels;
use super::shape::Shape;
use super::tile::{self, Tile};
use super::windows::Windows;
use crate::conv2d::hooks::{Epilogue, Stores, Sums};
use crate::conv2d::slices::Shared;
use crate::conv2d::workspace::LINE;
use crate::simd::{Kernel, Simd};

/// Output pixels that are worked on at a time.
const PIXELS: usize = 96;
/// Floats of a row of taps from which on adding it is worth its address.
const ROW_FLOATS: usize = 8;
/// Bands of all images, at least, if they are high enough.
const BANDS: usize = 16;
/// Floats of a band, at most, if it has several rows: they stay in a core's cache.
const BAND_FLOATS: usize = 200_000;

/// Whether this way is the shorter one.
pub(super) fn pays<S: Simd>(_s: S, shape: &Shape) -> bool {
    let [_, c, _, width] = shape.weight();
    shape.dilation() == 1 && 2 * c <= S::LANES && width * c >= ROW_FLOATS
}

/// Runs `pass`; returns the epilogue's sums, `[SUMS, C]`.
pub(super) fn scatter<S: Simd, E: Epilogue>(s: S, pass: DataGradient<'_, E>) -> Vec<f64> {
    let DataGradient {
        shape,
        dy,
        w,
        epilogue,
        dx,
        workspace,
    } = pass;
    let [n, h, width, c] = shape.input();
    assert!(
        E::STORES == Stores::All,
        "a direct convolution stores every output, and nothing else"
    );
    epilogue.check(c, dx.len());
    let [k, _, taps_down, taps_across] = shape.weight();
    let panels = Panels::new(s, taps_down * taps_across * c, k);
    let packed = workspace.weights.floats(panels.len());
    pack(w, shape, &panels, packed);

    let [_, _, q, _] = shape.output();
    let columns = ((q - 1) * shape.stride() + taps_across).max(shape.padding() + width);
    let row = (columns * c).next_multiple_of(LINE);
    let rows = h
        .div_ceil(BANDS.div_ceil(n.max(1)))
        .max(2 * taps_down)
        .min((BAND_FLOATS / row).max(1));
    let bands = h.div_ceil(rows);
    let job = Job {
        s,
        shape,
        panels,
        packed,
        dy,
        epilogue,
        dx: Shared(dx.as_mut_ptr().cast()),
        row,
        rows,
    };
    let sums_len = E::SUMS * S::LANES;
    let sums = workspace.sums.floats(n * bands * sums_len);
    sums.fill(0.0);
    let scratch_len = rows * row + PIXELS * job.column();
    workspace
        .threads
        .for_each_unit(n * bands, scratch_len, sums, sums_len, |unit, scratch, sums| {
            let first = unit % bands * rows;
            job.run(unit / bands, first..h.min(first + rows), scratch, sums);
        });
    let mut totals = vec![0.0; E::SUMS * c];
    for unit in sums.chunks_exact(sums_len.max(1)) {
        for (totals, sums) in totals.chunks_exact_mut(c).zip(unit.chunks_exact(S::LANES)) {
            for (total, &sum) in totals.iter_mut().zip(sums) {
                *total += f64::from(sum);
            }
        }
    }
    totals
}

/// Copies `w`, `[K, C, R, S]`, to panels over `[R, S, C]` with the output channels as depth.
fn pack(w: &[f32], shape: &Shape, panels: &Panels, target: &mut [f32]) {
    let [_, c, r, s] = shape.weight();
    let taps = r * s;
    for (panel, target) in target.chunks_exact_mut(panels.stride()).enumerate() {
        let (width, first) = (panels.width(panel), panel * panels.full_width());
        for (w, target) in w.chunks_exact(c * taps).zip(target.chunks_exact_mut(width)) {
            for (lane, target) in target.iter_mut().enumerate() {
                let at = first + lane;
                *target = if at < panels.channels {
                    w[at % c * taps + at / c]
                } else {
                    0.0
                };
            }
        }
    }
}

/// What all bands share. Invariant: `dy` has the length of the shape's output, `dx` is writable for that of its input, and nobody
/// else uses it.
struct Job<'a, S, E> {
    s: S,
    shape: &'a Shape,
    /// Over the taps' channels.
    panels: Panels,
    packed: &'a [f32],
    dy: &'a [f32],
    epilogue: &'a E,
    dx: Shared,
    /// Floats of a row of a band, which begins with the padding, and rows of a band, the last perhaps fewer.
    row: usize,
    rows: usize,
}

impl<S: Simd, E: Epilogue> Job<'_, S, E> {
    /// Floats of a window's gradients.
    fn column(&self) -> usize {
        self.panels.count() * self.panels.full_width()
    }

    /// Computes rows `band` of an image. Each is run once.
    fn run(&self, image: usize, band: Range<usize>, scratch: &mut [f32], sums: &mut [f32]) {
        let (shape, padding, stride) = (self.shape, self.shape.padding(), self.shape.stride());
        let [_, p, q, k] = shape.output();
        let [_, c, taps_down, taps_across] = shape.weight();
        let (band_floats, columns) = scratch.split_at_mut(self.rows * self.row);
        band_floats.fill(0.0);
        let mut windows = Windows::default();
        windows.segments.push(k);
        // Output rows whose windows meet the band.
        let first = (band.start + padding).saturating_sub(taps_down - 1).div_ceil(stride);
        let last = p.min((band.end - 1 + padding) / stride + 1);
        for y in first..last {
            // The window's first row, counted from the padding's, and its rows that lie in the band.
            let top = y * stride;
            let from = (band.start + padding).saturating_sub(top);
            let taps = from..taps_down.min(band.end + padding - top);
            let floats = taps.start * taps_across * c..taps.end * taps_across * c;
            let full = self.panels.full_width();
            let panels = floats.start / full..floats.end.div_ceil(full);
            for x in (0..q).step_by(PIXELS) {
                let len = PIXELS.min(q - x);
                let pixels = &self.dy[((image * p + y) * q + x) * k..][..len * k];
                windows.starts.clear();
                windows.starts.extend(pixels.chunks_exact(k).map(<[f32]>::as_ptr));
                self.multiply(&windows, len, panels.clone(), columns);
                let below = top + taps.start - padding - band.start;
                self.s.vectorize(Add {
                    columns,
                    column: self.column(),
                    pixels: len,
                    taps: taps.clone(),
                    floats: taps_across * c,
                    target: &mut band_floats[below * self.row + x * stride * c..],
                    row: self.row,
                    step: stride * c,
                });
            }
        }
        self.s.vectorize(Finish {
            job: self,
            image,
            band,
            values: band_floats,
            sums,
        });
    }

    /// The gradients of the windows of `len` pixels, at these panels, to `columns`.
    fn multiply(&self, windows: &Windows, len: usize, panels: Range<usize>, columns: &mut [f32]) {
        assert!(len <= PIXELS && columns.len() >= PIXELS * self.column());
        for panel in panels {
            let b = self.packed[panel * self.panels.stride()..].as_ptr();
            let tile = Tile {
                rows: len,
                a: windows,
                b,
                next: b.wrapping_add(self.panels.stride()),
                partial: columns[panel * self.panels.full_width()..].as_mut_ptr(),
                partial_stride: self.column(),
                resume: false,
                output: None,
            };
            // SAFETY: A is `len` pixels of `dy`, of as many channels as the panels are deep; B a panel; the columns hold `len` rows
            // of all panels by the assertion, and are this thread's.
            unsafe { tile::multiply(self.s, tile, self.panels.width(panel)) };
        }
    }
}

/// Adds windows' gradients to a band.
struct Add<'a> {
    /// `[pixels, column]`, of which a row of taps is `floats`.
    columns: &'a [f32],
    column: usize,
    pixels: usize,
    /// Rows of taps.
    taps: Range<usize>,
    floats: usize,
    /// From the first pixel's first row of these on; floats from a row to the next, and from a pixel's window to the next one's.
    target: &'a mut [f32],
    row: usize,
    step: usize,
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let whole = self.floats / S::LANES * S::LANES;
        for (pixel, column) in self.columns.chunks_exact(self.column).take(self.pixels).enumerate() {
            for (row, tap) in self.taps.clone().enumerate() {
                let source = &column[tap * self.floats..][..self.floats];
                let target = &mut self.target[row * self.row + pixel * self.step..][..self.floats];
                let (source, target) = (source.as_ptr(), target.as_mut_ptr());
                for at in (0..whole).step_by(S::LANES) {
                    // SAFETY: the slices have `floats` floats, at least `at + LANES`.
                    let more = unsafe { s.load(source.wrapping_add(at)) };
                    // SAFETY: as above.
                    let before = unsafe { s.load(target.wrapping_add(at)) };
                    // SAFETY: as above.
                    unsafe { s.store(target.wrapping_add(at), s.add(before, more)) };
                }
                if whole < self.floats {
                    let rest = self.floats - whole;
                    // SAFETY: `rest` floats, less than a vector, are left of the slices.
                    let more = unsafe { s.load_first(source.wrapping_add(whole), rest) };
                    // SAFETY: as above.
                    let before = unsafe { s.load_first(target.wrapping_add(whole), rest) };
                    // SAFETY: as above.
                    unsafe { s.store_first(target.wrapping_add(whole), s.add(before, more), rest) };
                }
            }
        }
    }
}

/// Hands a band to the epilogue, pixel by pixel.
struct Finish<'a, S, E> {
    job: &'a Job<'a, S, E>,
    image: usize,
    band: Range<usize>,
    values: &'a [f32],
    /// `[SUMS, LANES]`.
    sums: &'a mut [f32],
}

impl<J: Simd, E: Epilogue> Kernel for Finish<'_, J, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { job, image, band, .. } = self;
        let [_, h, width, c] = job.shape.input();
        let padding = job.shape.padding() * c;
        for (row, y) in self.values.chunks_exact(job.row).zip(band) {
            let mut constants = job.epilogue.channels(s, 0, c);
            let first = (image * h + y) * width * c;
            for (x, pixel) in row[padding..][..width * c].chunks_exact(c).enumerate() {
                let index = first + x * c;
                // SAFETY: a pixel has `c` floats, at most half a vector.
                let value = unsafe { s.load_first(pixel.as_ptr(), c) };
                let value = job.epilogue.apply(s, &mut constants, value, index, c);
                // SAFETY: the input's gradient is writable at this pixel's `c` channels, which are this unit's.
                unsafe { s.store_first(job.dx.get().wrapping_add(index), value, c) };
            }
            E::finish(s, constants, Sums::new(&mut *self.sums, S::LANES, 0));
        }
    }
}
