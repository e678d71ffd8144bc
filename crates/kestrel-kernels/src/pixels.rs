//! From 8-bit RGB pixels to normalised planes of floats: `ToTensor` and `Normalize` in one pass over a window of an image.
//!
//! The numbers are those of `(x / 255 - mean) / std` in `f32`, bit for bit: what PyTorch computes. A division by a constant
//! is a product with its reciprocal as a sum of two floats, `x * high + x * low` with one fused multiply-add. That this gives
//! the same float for all 256 values of each channel is checked when a [`RgbToPlanes`] is first used, on the instruction set that
//! it runs on, and a table serves where it does not.
//!
//! Output is written in whole vectors from each row's start on; lanes outside of the visible pixels load as 0, which is
//! black, so that a border costs no pass of its own.
//!
//! Shapes: pixels are `[rows, columns, 3]`, planes `[3, H, W]`.

mod resident;

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::OnceLock;

use crate::simd::{self, Isa, Kernel, Simd};
use crate::{Error, Result};

pub use resident::{Erasure, FIRST_FILL, MAX_FILLS, Placement, ResidentImages};

/// Channels of a pixel: red, green, blue.
const CHANNELS: usize = 3;

/// A window over 8-bit RGB pixels: a rectangle of visible pixels, black around it.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// Interleaved pixels, from the first visible one on.
    pub pixels: &'a [u8],
    /// Bytes from a row to the next.
    pub stride: usize,
    /// Height and width of the window, `H` and `W`.
    pub size: (usize, usize),
    /// Row and column of the window at which the visible pixels start.
    pub start: (usize, usize),
    /// Rows and columns of visible pixels.
    pub visible: (usize, usize),
    /// Whether the columns are read from right to left.
    pub flipped: bool,
}

impl Window<'_> {
    /// Whether the visible pixels lie within the window and within `pixels`.
    fn is_valid(&self) -> bool {
        let (rows, columns) = self.visible;
        let within = |start: usize, count: usize, size: usize| start.checked_add(count).is_some_and(|end| end <= size);
        let bytes = columns.checked_mul(CHANNELS);
        let needed = match (rows, bytes) {
            (0, _) | (_, Some(0)) => Some(0),
            (_, Some(bytes)) => (rows - 1)
                .checked_mul(self.stride)
                .and_then(|skipped| skipped.checked_add(bytes)),
            (_, None) => None,
        };
        within(self.start.0, rows, self.size.0)
            && within(self.start.1, columns, self.size.1)
            && needed.is_some_and(|needed| needed <= self.pixels.len())
    }
}

/// `y = (x / 255 - mean) / std` for each channel, on a window of 8-bit pixels.
#[derive(Clone, Debug)]
pub struct RgbToPlanes {
    scale: [Scale; CHANNELS],
    table: Box<[[f32; 256]; CHANNELS]>,
    /// The instruction set that gives the table's values without the table, if one does. Found at the first use: who makes
    /// transforms may not have chosen the set yet.
    isa: OnceLock<Option<Isa>>,
}

/// The constants of a channel.
#[derive(Clone, Copy, Debug)]
struct Scale {
    mean: f32,
    std: f32,
    /// `1 / std`.
    reciprocal: Reciprocal,
}

/// A reciprocal, rounded to a float, and what it is off by.
#[derive(Clone, Copy, Debug)]
struct Reciprocal {
    high: f32,
    low: f32,
}

impl Reciprocal {
    fn of(divisor: f32) -> Self {
        let exact = 1.0 / f64::from(divisor);
        let high = exact as f32;
        let low = (exact - f64::from(high)) as f32;
        Self { high, low }
    }
}

impl RgbToPlanes {
    /// Normalises red, green and blue by these means and standard deviations; 0 and 1 leave `x / 255` as it is.
    pub fn new(mean: [f32; CHANNELS], std: [f32; CHANNELS]) -> Self {
        let scale = std::array::from_fn(|channel| Scale {
            mean: mean[channel],
            std: std[channel],
            reciprocal: Reciprocal::of(std[channel]),
        });
        let mut table = Box::new([[0.0; 256]; CHANNELS]);
        for (values, Scale { mean, std, .. }) in table.iter_mut().zip(scale) {
            for (pixel, value) in values.iter_mut().enumerate() {
                *value = (pixel as f32 / 255.0 - mean) / std;
            }
        }
        Self {
            scale,
            table,
            isa: OnceLock::new(),
        }
    }

    fn isa(&self) -> Option<Isa> {
        *self.isa.get_or_init(|| {
            let isa = Isa::current();
            self.is_exact(isa).then_some(isa)
        })
    }

    /// Whether an instruction set gives the table's values without the table.
    fn is_exact(&self, isa: Isa) -> bool {
        let all: Vec<u8> = (0..=255).flat_map(|value| [value; CHANNELS]).collect();
        let mut got = vec![MaybeUninit::new(0.0); all.len()];
        let window = Window {
            pixels: &all,
            stride: all.len(),
            size: (1, 256),
            start: (0, 0),
            visible: (1, 256),
            flipped: false,
        };
        let same = |(got, want): (&f32, &f32)| got.to_bits() == want.to_bits();
        let written = self.write_on(Some(isa), window, &mut got);
        written.is_ok_and(|got| got.iter().zip(self.table.as_flattened()).all(same))
    }

    /// What each of the 256 values of a channel becomes.
    ///
    /// # Panics
    /// If `channel` is not below 3.
    pub fn table(&self, channel: usize) -> &[f32; 256] {
        &self.table[channel]
    }

    /// Writes a window's pixels into planes, reading each once.
    ///
    /// # Shapes
    /// `out` is `[3, H, W]`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `out` has another length, or if the window's visible pixels do not lie within the
    /// window and within its bytes.
    pub fn write(&self, window: Window<'_>, out: &mut [f32]) -> Result<()> {
        // SAFETY: floats are initialised floats, and `write_new` writes nothing but floats.
        let out = unsafe { &mut *(std::ptr::from_mut(out) as *mut [MaybeUninit<f32>]) };
        self.write_new(window, out).map(|_| ())
    }

    /// [`Self::write`] into memory that holds nothing yet; gives that memory, written.
    ///
    /// # Errors
    /// Those of [`Self::write`].
    pub fn write_new<'a>(&self, window: Window<'_>, out: &'a mut [MaybeUninit<f32>]) -> Result<&'a mut [f32]> {
        self.write_on(self.isa(), window, out)
    }

    /// The same on one instruction set, or by the table.
    fn write_on<'a>(
        &self,
        isa: Option<Isa>,
        window: Window<'_>,
        out: &'a mut [MaybeUninit<f32>],
    ) -> Result<&'a mut [f32]> {
        let fault = |argument, expected, got: usize| Error::InvalidArgument {
            op: "rgb_to_planes",
            argument,
            expected,
            got: got as f64,
        };
        if !window.is_valid() {
            let expected = "enough for the window's visible pixels";
            return Err(fault("the length of pixels", expected, window.pixels.len()));
        }
        let (height, width) = window.size;
        if height.checked_mul(width).and_then(|plane| plane.checked_mul(CHANNELS)) != Some(out.len()) {
            return Err(fault("the length of out", "3 * H * W", out.len()));
        }
        // Without a column there is no pixel to read, whatever the rows: all is black.
        let window = match window.visible.1 {
            0 => Window {
                visible: (0, 0),
                ..window
            },
            _ => window,
        };
        if !out.is_empty() {
            match isa {
                Some(isa) => isa.dispatch(Write {
                    planes: self,
                    window,
                    out,
                }),
                None => self.write_by_table(window, out),
            }
        }
        // SAFETY: both ways write every element: rows above, of and below the visible ones make up the window's height, and
        // each row is written from its first to its last column.
        Ok(unsafe { out.assume_init_mut() })
    }

    fn write_by_table(&self, window: Window<'_>, out: &mut [MaybeUninit<f32>]) {
        let (height, width) = window.size;
        let (first_row, start) = window.start;
        for (plane, (channel, table)) in out.chunks_exact_mut(height * width).zip(self.table.iter().enumerate()) {
            plane.fill(MaybeUninit::new(table[0]));
            let rows = plane.chunks_exact_mut(width).skip(first_row).take(window.visible.0);
            for (y, row) in rows.enumerate() {
                let visible = &mut row[start..start + window.visible.1];
                let (pixels, _) = window.pixels[y * window.stride..].as_chunks::<CHANNELS>();
                let pixels = &pixels[..visible.len()];
                let put = |(value, pixel): (&mut MaybeUninit<f32>, &[u8; CHANNELS])| {
                    value.write(table[usize::from(pixel[channel])]);
                };
                if window.flipped {
                    visible.iter_mut().zip(pixels.iter().rev()).for_each(put);
                } else {
                    visible.iter_mut().zip(pixels).for_each(put);
                }
            }
        }
    }
}

/// [`RgbToPlanes::write`] on one instruction set; `out` is not empty and the window is valid.
struct Write<'a> {
    planes: &'a RgbToPlanes,
    window: Window<'a>,
    out: &'a mut [MaybeUninit<f32>],
}

impl Kernel for Write<'_> {
    type Output = ();

    fn run<S: Simd>(self, s: S) {
        s.vectorize(Rows(self));
    }
}

struct Rows<'a>(Write<'a>);

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Write { planes, window, out } = self.0;
        let (height, width) = window.size;
        let first_row = window.start.0;
        let (rows, columns) = window.visible;
        let [red, green, blue] = &*planes.table;
        let black = [s.splat(red[0]), s.splat(green[0]), s.splat(blue[0])];
        fill(s, out, (height, width), 0..first_row, black);
        fill(s, out, (height, width), first_row + rows..height, black);
        let lanes = Lanes::new(s, planes.scale);
        let blocks = width.div_ceil(S::LANES);
        for first in (0..blocks).step_by(STRIP) {
            let count = STRIP.min(blocks - first);
            let mut strip = [Block::default(); STRIP];
            for (block, number) in strip.iter_mut().zip(first..first + count) {
                *block = Block::new(S::LANES, number * S::LANES, &window);
            }
            let strip = &strip[..count];
            for y in 0..rows {
                let row = &window.pixels[y * window.stride..][..columns * CHANNELS];
                let at = (first_row + y) * width;
                if window.flipped {
                    write_row::<S, true>(s, row, strip, out, (height * width, at), &lanes);
                } else {
                    write_row::<S, false>(s, row, strip, out, (height * width, at), &lanes);
                }
            }
        }
    }
}

/// Blocks of a row that are worked out at once, for all rows.
const STRIP: usize = 8;

/// A vector's columns in each row of the output, and the pixels that they show.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// The first column.
    x: usize,
    /// Number of columns.
    columns: usize,
    /// Lanes before the first pixel, in the order of the pixels.
    skipped: usize,
    /// Where in the row's bytes the first pixel is.
    from: usize,
    /// Number of pixels.
    pixels: usize,
}

impl Block {
    fn new(lanes: usize, x: usize, window: &Window<'_>) -> Self {
        let (start, end) = (window.start.1, window.start.1 + window.visible.1);
        let columns = lanes.min(window.size.1 - x);
        // The visible columns among the block's.
        let (first, last) = (start.max(x).min(x + columns), end.max(x).min(x + columns));
        let pixels = last - first;
        let (skipped, pixel) = match pixels {
            0 => (0, 0),
            _ if window.flipped => (x + lanes - last, end - last),
            _ => (first - x, first - start),
        };
        Self {
            x,
            columns,
            skipped,
            from: pixel * CHANNELS,
            pixels,
        }
    }
}

/// Writes a strip's columns of one row of each plane, at `at` in planes of `plane` elements.
#[inline(always)]
fn write_row<S: Simd, const FLIPPED: bool>(
    s: S,
    row: &[u8],
    strip: &[Block],
    out: &mut [MaybeUninit<f32>],
    (plane, at): (usize, usize),
    lanes: &Lanes<S::V>,
) {
    for block in strip {
        let pixels = row[block.from..][..block.pixels * CHANNELS].as_ptr();
        let values = if FLIPPED {
            // SAFETY: the slice above holds the pixels, and a block has at most LANES - skipped of them.
            unsafe { s.load_rgb_reversed(pixels, block.skipped, block.pixels) }
        } else {
            // SAFETY: the same.
            unsafe { s.load_rgb(pixels, block.skipped, block.pixels) }
        };
        for (channel, &value) in values.iter().enumerate() {
            let value = lanes.scale(s, channel, value);
            let start = channel * plane + at + block.x;
            simd::store(s, &mut out[start..start + block.columns], value);
        }
    }
}

/// Writes each channel's value to these rows of its plane.
#[inline(always)]
fn fill<S: Simd>(
    s: S,
    out: &mut [MaybeUninit<f32>],
    (height, width): (usize, usize),
    rows: Range<usize>,
    values: [S::V; CHANNELS],
) {
    for channel in 0..CHANNELS {
        let plane = &mut out[channel * height * width..][..height * width];
        let target = &mut plane[rows.start * width..rows.end * width];
        let mut done = 0;
        while done < target.len() {
            let end = target.len().min(done + S::LANES);
            simd::store(s, &mut target[done..end], values[channel]);
            done = end;
        }
    }
}

/// The constants in every lane.
struct Lanes<V> {
    white: [V; 2],
    mean: [V; CHANNELS],
    reciprocal: [[V; 2]; CHANNELS],
}

impl<V: Copy> Lanes<V> {
    #[inline(always)]
    fn new<S: Simd<V = V>>(s: S, [red, green, blue]: [Scale; CHANNELS]) -> Self {
        // A closure would not be compiled with the instruction set.
        Self {
            white: splat_both(s, Reciprocal::of(255.0)),
            mean: [s.splat(red.mean), s.splat(green.mean), s.splat(blue.mean)],
            reciprocal: [
                splat_both(s, red.reciprocal),
                splat_both(s, green.reciprocal),
                splat_both(s, blue.reciprocal),
            ],
        }
    }

    /// `(x / 255 - mean) / std`.
    #[inline(always)]
    fn scale<S: Simd<V = V>>(&self, s: S, channel: usize, x: V) -> V {
        let unit = divide(s, x, self.white);
        let centred = s.sub(unit, self.mean[channel]);
        divide(s, centred, self.reciprocal[channel])
    }
}

#[inline(always)]
fn splat_both<S: Simd>(s: S, reciprocal: Reciprocal) -> [S::V; 2] {
    [s.splat(reciprocal.high), s.splat(reciprocal.low)]
}

/// `x` divided by the number whose reciprocal this is.
#[inline(always)]
fn divide<S: Simd>(s: S, x: S::V, [high, low]: [S::V; 2]) -> S::V {
    s.mul_add(x, high, s.mul(x, low))
}

#[cfg(test)]
mod tests;
