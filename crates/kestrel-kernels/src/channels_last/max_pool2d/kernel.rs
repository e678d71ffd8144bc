//! The passes over the windows: maxima and choices forward, gradients to the chosen taps backward.
//!
//! Every loop runs over the channels of a pixel and is left to the compiler's vectoriser, inside a function that enables
//! the processor's instruction set.

use crate::element::written;
use crate::max_pool2d::geometry::Geometry;
use crate::simd::{Isa, Kernel, MAX_LANES, Simd};
use rayon::prelude::*;
use std::array::from_mut;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Output elements below which rows are not shared out one by one.
const BLOCK: usize = 1 << 13;

/// Channels of a loop whose length the compiler knows.
const LANES: usize = MAX_LANES;

/// The maximum of each window and, if `keep_choices`, the number of the tap that it came from.
pub(super) fn maxima(g: &Geometry, x: &[f32], keep_choices: bool) -> (Vec<f32>, Vec<u8>) {
    Isa::current().dispatch(Maxima { g, x, keep_choices })
}

/// Each window's gradient added to the pixel that its maximum came from.
pub(super) fn scatter(g: &Geometry, choices: &[u8], dy: &[f32]) -> Vec<f32> {
    Isa::current().dispatch(Scatter { g, choices, dy })
}

/// Writes `value` everywhere.
#[inline(always)]
fn fill<T: Copy>(data: &mut [MaybeUninit<T>], value: T) -> &mut [T] {
    data.fill(MaybeUninit::new(value));
    // SAFETY: the line above has written every element.
    unsafe { data.assume_init_mut() }
}

struct Maxima<'a> {
    g: &'a Geometry,
    x: &'a [f32],
    keep_choices: bool,
}

impl Kernel for Maxima<'_> {
    type Output = (Vec<f32>, Vec<u8>);

    fn run<S: Simd>(self, s: S) -> Self::Output {
        let Self { g, x, keep_choices } = self;
        assert_eq!(x.len(), g.batch * g.height * g.in_row(), "expected images [N, H, W, C]");
        let len = g.batch * g.out_height * g.out_row();
        let outside = vec![f32::NEG_INFINITY; g.channels];
        let rows_at_once = (BLOCK / g.out_row()).max(1);
        let mut choices = Vec::new();
        let fill = |y: &mut [MaybeUninit<f32>]| {
            let rows = y.par_chunks_mut(g.out_row()).enumerate().map(|(row, y)| {
                let input = InputRows {
                    g,
                    x,
                    outside: &outside,
                    top: row / g.out_height * g.height,
                    p: row % g.out_height,
                };
                (input, y)
            });
            if keep_choices {
                // SAFETY: `OutputRow` writes every choice of its row, and the rows make up the whole.
                choices = unsafe {
                    written(len, |choices| {
                        rows.zip(choices.par_chunks_mut(g.out_row()))
                            .with_min_len(rows_at_once)
                            .for_each(|((input, y), choices)| s.vectorize(OutputRow { input, y, choices }));
                    })
                };
            } else {
                rows.with_min_len(rows_at_once).for_each_init(
                    || vec![MaybeUninit::uninit(); g.out_row()],
                    |unused, (input, y)| {
                        s.vectorize(OutputRow {
                            input,
                            y,
                            choices: unused,
                        })
                    },
                );
            }
        };
        // SAFETY: `OutputRow` writes every maximum of its row, and the rows make up the whole.
        let y = unsafe { written(len, fill) };
        (y, choices)
    }
}

/// What a row of windows is taken over.
#[derive(Clone, Copy)]
struct InputRows<'a> {
    g: &'a Geometry,
    /// The whole input.
    x: &'a [f32],
    /// A pixel outside the image.
    outside: &'a [f32],
    /// The image's first row, among those of all images.
    top: usize,
    /// The row of windows within its image.
    p: usize,
}

impl<'a> InputRows<'a> {
    /// The pixel under a tap of window `q`; the tap must lie inside the image.
    #[inline(always)]
    fn pixel(&self, q: usize, r: usize, s: usize) -> &'a [f32] {
        let g = self.g;
        let row = self.top + g.pixel(self.p, r);
        &self.x[(row * g.width + g.pixel(q, s)) * g.channels..][..g.channels]
    }
}

/// One row of windows: `y` and `choices` are `[Q, C]`, and are wholly written.
struct OutputRow<'a> {
    input: InputRows<'a>,
    y: &'a mut [MaybeUninit<f32>],
    choices: &'a mut [MaybeUninit<u8>],
}

impl Kernel for OutputRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { input, y, choices } = self;
        let g = input.g;
        let rows = g.taps_inside(input.p, g.height);
        let windows = y.chunks_exact_mut(g.channels).zip(choices.chunks_exact_mut(g.channels));
        for (q, (y, choices)) in windows.enumerate() {
            let columns = g.taps_inside(q, g.width);
            match g.kernel {
                2 => small_window::<2, 4>(input, q, &rows, &columns, y, choices),
                3 => small_window::<3, 9>(input, q, &rows, &columns, y, choices),
                _ => large_window(input, q, &rows, &columns, y, choices),
            }
        }
    }
}

/// Window `q`, all taps at once; `TAPS` is `KERNEL` squared, and the taps at `rows` and `columns` lie inside the image.
#[inline(always)]
fn small_window<const KERNEL: usize, const TAPS: usize>(
    input: InputRows<'_>,
    q: usize,
    rows: &Range<usize>,
    columns: &Range<usize>,
    y: &mut [MaybeUninit<f32>],
    choices: &mut [MaybeUninit<u8>],
) {
    let mut taps = [input.outside; TAPS];
    for r in rows.clone() {
        for s in columns.clone() {
            taps[r * KERNEL + s] = input.pixel(q, r, s);
        }
    }
    choose(taps, rows.start * KERNEL + columns.start, y, choices);
}

/// Window `q`, one tap after the other; the taps at `rows` and `columns` lie inside the image.
#[inline(always)]
fn large_window(
    input: InputRows<'_>,
    q: usize,
    rows: &Range<usize>,
    columns: &Range<usize>,
    y: &mut [MaybeUninit<f32>],
    choices: &mut [MaybeUninit<u8>],
) {
    let kernel = input.g.kernel;
    let y = y.write_copy_of_slice(input.pixel(q, rows.start, columns.start));
    let choices = fill(choices, (rows.start * kernel + columns.start) as u8);
    for r in rows.clone() {
        for s in columns.clone() {
            let tap = (r * kernel + s) as u8;
            for ((y, choice), x) in y.iter_mut().zip(&mut *choices).zip(input.pixel(q, r, s)) {
                let takes = takes_over(*x, *y);
                *y = if takes { *x } else { *y };
                *choice = if takes { tap } else { *choice };
            }
        }
    }
}

/// PyTorch's test: a later tap takes over if it is larger or NaN.
#[inline(always)]
fn takes_over(later: f32, maximum: f32) -> bool {
    (later > maximum) | later.is_nan()
}

/// The maximum of the taps and its number, for each channel. The taps outside the image are −∞ and so never take over
/// from the first one inside.
#[inline(always)]
fn choose<const TAPS: usize>(
    taps: [&[f32]; TAPS],
    first_inside: usize,
    y: &mut [MaybeUninit<f32>],
    choices: &mut [MaybeUninit<u8>],
) {
    let (y, y_rest) = y.as_chunks_mut::<LANES>();
    let (choices, choices_rest) = choices.as_chunks_mut::<LANES>();
    let rest = y.len() * LANES;
    for (i, (y, choices)) in y.iter_mut().zip(choices).enumerate() {
        choose_lanes(lanes(&taps, i * LANES), first_inside, y, choices);
    }
    for (i, (y, choice)) in y_rest.iter_mut().zip(choices_rest).enumerate() {
        choose_lanes(lanes(&taps, rest + i), first_inside, from_mut(y), from_mut(choice));
    }
}

/// Some channels of each tap, from `channel` on.
#[inline(always)]
fn lanes<'a, const LANES: usize, const TAPS: usize>(
    taps: &[&'a [f32]; TAPS],
    channel: usize,
) -> [&'a [f32; LANES]; TAPS] {
    let mut lanes = [&[0.0; LANES]; TAPS];
    for (lanes, tap) in lanes.iter_mut().zip(taps) {
        // There is exactly one chunk in as many channels.
        for chunk in tap[channel..][..LANES].as_chunks().0 {
            *lanes = chunk;
        }
    }
    lanes
}

/// As [`choose`], for a fixed number of channels: results in arrays of its own tell the compiler that nothing overlaps.
#[inline(always)]
fn choose_lanes<const LANES: usize, const TAPS: usize>(
    taps: [&[f32; LANES]; TAPS],
    first_inside: usize,
    y: &mut [MaybeUninit<f32>; LANES],
    choices: &mut [MaybeUninit<u8>; LANES],
) {
    let mut maxima = *taps[first_inside];
    let mut chosen = [first_inside as u32; LANES];
    for (t, tap) in taps.iter().enumerate().skip(1) {
        for i in 0..LANES {
            let takes = takes_over(tap[i], maxima[i]);
            maxima[i] = if takes { tap[i] } else { maxima[i] };
            chosen[i] = if takes { t as u32 } else { chosen[i] };
        }
    }
    for i in 0..LANES {
        y[i].write(maxima[i]);
        choices[i].write(chosen[i] as u8);
    }
}

struct Scatter<'a> {
    g: &'a Geometry,
    choices: &'a [u8],
    dy: &'a [f32],
}

impl Kernel for Scatter<'_> {
    type Output = Vec<f32>;

    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let Self { g, choices, dy } = self;
        let (in_image, out_image) = (g.height * g.in_row(), g.out_height * g.out_row());
        assert_eq!(
            [choices.len(), dy.len()],
            [g.batch * out_image; 2],
            "expected outputs [N, P, Q, C]"
        );
        let fill = |dx: &mut [MaybeUninit<f32>]| {
            dx.par_chunks_mut(in_image)
                .zip(choices.par_chunks(out_image).zip(dy.par_chunks(out_image)))
                .with_min_len((BLOCK / out_image).max(1))
                .for_each(|(dx, (choices, dy))| s.vectorize(ScatterImage { g, choices, dy, dx }));
        };
        // SAFETY: `ScatterImage` writes the whole of its image, and there is one for each: `choices` and `dy` have as many
        // by the assertion.
        unsafe { written(g.batch * in_image, fill) }
    }
}

/// One image: `choices` and `dy` are `[P, Q, C]`, `dx` is `[H, W, C]`.
struct ScatterImage<'a> {
    g: &'a Geometry,
    choices: &'a [u8],
    dy: &'a [f32],
    dx: &'a mut [MaybeUninit<f32>],
}

impl Kernel for ScatterImage<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        if self.g.halves() { self.write() } else { self.add() }
    }
}

impl ScatterImage<'_> {
    /// Windows of 2x2 side by side: every pixel is written once.
    #[inline(always)]
    fn write(self) {
        let g = self.g;
        let covered = 2 * g.out_width * g.channels;
        let (pairs, below) = self.dx.split_at_mut(g.out_height * 2 * g.in_row());
        fill(below, 0.0);
        let windows = self
            .choices
            .chunks_exact(g.out_row())
            .zip(self.dy.chunks_exact(g.out_row()));
        for (pair, (choices, dy)) in pairs.chunks_exact_mut(2 * g.in_row()).zip(windows) {
            let (upper, lower) = pair.split_at_mut(g.in_row());
            fill(&mut upper[covered..], 0.0);
            fill(&mut lower[covered..], 0.0);
            let pixels = upper
                .chunks_exact_mut(2 * g.channels)
                .zip(lower.chunks_exact_mut(2 * g.channels));
            let windows = choices.chunks_exact(g.channels).zip(dy.chunks_exact(g.channels));
            for ((upper, lower), (choices, dy)) in pixels.zip(windows) {
                let ((a, b), (c, d)) = (upper.split_at_mut(g.channels), lower.split_at_mut(g.channels));
                write_window([a, b, c, d], choices, dy);
            }
        }
    }

    /// Any windows: they are added to zeros in row-major order.
    #[inline(always)]
    fn add(self) {
        let g = self.g;
        let dx = fill(self.dx, 0.0);
        for p in 0..g.out_height {
            for q in 0..g.out_width {
                let window = (p * g.out_width + q) * g.channels;
                let choices = &self.choices[window..][..g.channels];
                let dy = &self.dy[window..][..g.channels];
                for r in g.taps_inside(p, g.height) {
                    for s in g.taps_inside(q, g.width) {
                        let tap = (r * g.kernel + s) as u8;
                        let dx = &mut dx[(g.pixel(p, r) * g.width + g.pixel(q, s)) * g.channels..][..g.channels];
                        for ((dx, choice), dy) in dx.iter_mut().zip(choices).zip(dy) {
                            *dx += if *choice == tap { *dy } else { 0.0 };
                        }
                    }
                }
            }
        }
    }
}

/// The gradient at the chosen tap of each channel, 0 at the others.
#[inline(always)]
fn write_window(taps: [&mut [MaybeUninit<f32>]; 4], choices: &[u8], dy: &[f32]) {
    for (t, tap) in taps.into_iter().enumerate() {
        let (dx, dx_rest) = tap.as_chunks_mut::<LANES>();
        let (choices, choices_rest) = choices.as_chunks::<LANES>();
        let (dy, dy_rest) = dy.as_chunks::<LANES>();
        for ((dx, choices), dy) in dx.iter_mut().zip(choices).zip(dy) {
            let mut values = [0.0; LANES];
            for i in 0..LANES {
                values[i] = chosen_gradient(t, choices[i], dy[i]);
            }
            for (dx, value) in dx.iter_mut().zip(values) {
                dx.write(value);
            }
        }
        for ((dx, choice), dy) in dx_rest.iter_mut().zip(choices_rest).zip(dy_rest) {
            dx.write(chosen_gradient(t, *choice, *dy));
        }
    }
}

/// `dy` if the choice is this tap, else 0. It is added to 0 like any gradient, so that −0 becomes 0.
#[inline(always)]
fn chosen_gradient(tap: usize, choice: u8, dy: f32) -> f32 {
    if u32::from(choice) == tap as u32 { 0.0 + dy } else { 0.0 }
}
