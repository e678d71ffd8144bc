//! From 8-bit RGB pixels to normalised planes of floats: `ToTensor` and `Normalize` in one pass over a window of an image.
//!
//! The numbers are those of `(x / 255 - mean) / std` in `f32`, bit for bit: what PyTorch computes. A division by a constant
//! is done as a product with its reciprocal, corrected by two fused multiply-adds (Markstein 1990), which gives the same
//! float; that this holds for all 256 values of each channel is checked when a [`RgbToPlanes`] is made, on the instruction
//! set that it will run on, and a table serves where it does not.
//!
//! Shapes: pixels are `[rows, columns, 3]`, planes `[3, H, W]`.

use crate::simd::{Isa, Kernel, Simd};
use crate::{Error, Result};

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
    /// The instruction set that gives the table's values without the table, if one does.
    isa: Option<Isa>,
}

/// The constants of a channel.
#[derive(Clone, Copy, Debug)]
struct Scale {
    mean: f32,
    std: f32,
    /// `1 / std`.
    reciprocal: f32,
}

impl RgbToPlanes {
    /// Normalises red, green and blue by these means and standard deviations; 0 and 1 leave `x / 255` as it is.
    pub fn new(mean: [f32; CHANNELS], std: [f32; CHANNELS]) -> Self {
        Self::with_isa(mean, std, Isa::detect())
    }

    fn with_isa(mean: [f32; CHANNELS], std: [f32; CHANNELS], isa: Isa) -> Self {
        let scale = std::array::from_fn(|channel| Scale {
            mean: mean[channel],
            std: std[channel],
            reciprocal: 1.0 / std[channel],
        });
        let mut table = Box::new([[0.0; 256]; CHANNELS]);
        for (values, Scale { mean, std, .. }) in table.iter_mut().zip(scale) {
            for (pixel, value) in values.iter_mut().enumerate() {
                *value = (pixel as f32 / 255.0 - mean) / std;
            }
        }
        let mut this = Self {
            scale,
            table,
            isa: Some(isa),
        };
        let all: Vec<u8> = (0..=255).flat_map(|value| [value; CHANNELS]).collect();
        let mut got = vec![0.0; all.len()];
        let window = Window {
            pixels: &all,
            stride: all.len(),
            size: (1, 256),
            start: (0, 0),
            visible: (1, 256),
            flipped: false,
        };
        let written = this.write(window, &mut got);
        let same = |(got, want): (&f32, &f32)| got.to_bits() == want.to_bits();
        if written.is_err() || !got.iter().zip(this.table.as_flattened()).all(same) {
            this.isa = None;
        }
        this
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
        if out.is_empty() {
            return Ok(());
        }
        match self.isa {
            Some(isa) => isa.dispatch(Write {
                planes: self,
                window,
                out,
            }),
            None => self.write_by_table(window, out),
        }
        Ok(())
    }

    fn write_by_table(&self, window: Window<'_>, out: &mut [f32]) {
        let (height, width) = window.size;
        let (first_row, start) = window.start;
        for (plane, (channel, table)) in out.chunks_exact_mut(height * width).zip(self.table.iter().enumerate()) {
            plane.fill(table[0]);
            let rows = plane.chunks_exact_mut(width).skip(first_row).take(window.visible.0);
            for (y, row) in rows.enumerate() {
                let visible = &mut row[start..start + window.visible.1];
                let (pixels, _) = window.pixels[y * window.stride..].as_chunks::<CHANNELS>();
                let pixels = &pixels[..visible.len()];
                let put = |(value, pixel): (&mut f32, &[u8; CHANNELS])| *value = table[usize::from(pixel[channel])];
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
    out: &'a mut [f32],
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
        let (first_row, start) = window.start;
        let (rows, columns) = window.visible;
        let plane = height * width;
        let [red, green, blue] = &*planes.table;
        let black = [s.splat(red[0]), s.splat(green[0]), s.splat(blue[0])];
        let lanes = Lanes::new(s, planes.scale);
        fill(s, out, plane, 0, first_row * width, black);
        fill(
            s,
            out,
            plane,
            (first_row + rows) * width,
            (height - first_row - rows) * width,
            black,
        );
        for y in 0..rows {
            let at = (first_row + y) * width;
            fill(s, out, plane, at, start, black);
            fill(s, out, plane, at + start + columns, width - start - columns, black);
            let row = &window.pixels[y * window.stride..][..columns * CHANNELS];
            let mut x = 0;
            while x < columns {
                let n = S::LANES.min(columns - x);
                let from = if window.flipped { columns - x - n } else { x };
                let pixels = row[from * CHANNELS..][..n * CHANNELS].as_ptr();
                // SAFETY: the slice above holds n pixels.
                let pixels = unsafe { s.load_rgb(pixels, n) };
                for channel in 0..CHANNELS {
                    let value = lanes.scale(s, channel, pixels[channel]);
                    let value = if window.flipped {
                        s.reverse_first(value, n)
                    } else {
                        value
                    };
                    store(s, &mut out[channel * plane + at + start + x..][..n], value);
                }
                x += n;
            }
        }
    }
}

/// Stores the first lanes of a vector, as many as `target` has elements.
#[inline(always)]
fn store<S: Simd>(s: S, target: &mut [f32], value: S::V) {
    if target.len() >= S::LANES {
        // SAFETY: the slice holds at least LANES floats.
        unsafe { s.store(target.as_mut_ptr(), value) };
    } else {
        // SAFETY: the slice holds `len` floats, fewer than LANES.
        unsafe { s.store_first(target.as_mut_ptr(), value, target.len()) };
    }
}

/// Writes each channel's value to `count` floats from `at` on in its plane.
#[inline(always)]
fn fill<S: Simd>(s: S, out: &mut [f32], plane: usize, at: usize, count: usize, values: [S::V; CHANNELS]) {
    if count == 0 {
        return;
    }
    for channel in 0..CHANNELS {
        let target = &mut out[channel * plane + at..][..count];
        let mut done = 0;
        while done < count {
            let end = count.min(done + S::LANES);
            store(s, &mut target[done..end], values[channel]);
            done = end;
        }
    }
}

/// The constants in every lane.
struct Lanes<V> {
    white: V,
    inverse_white: V,
    mean: [V; CHANNELS],
    std: [V; CHANNELS],
    reciprocal: [V; CHANNELS],
}

impl<V: Copy> Lanes<V> {
    #[inline(always)]
    fn new<S: Simd<V = V>>(s: S, scale: [Scale; CHANNELS]) -> Self {
        Self {
            white: s.splat(255.0),
            inverse_white: s.splat(1.0 / 255.0),
            // A closure would not be compiled with the instruction set.
            mean: [s.splat(scale[0].mean), s.splat(scale[1].mean), s.splat(scale[2].mean)],
            std: [s.splat(scale[0].std), s.splat(scale[1].std), s.splat(scale[2].std)],
            reciprocal: [
                s.splat(scale[0].reciprocal),
                s.splat(scale[1].reciprocal),
                s.splat(scale[2].reciprocal),
            ],
        }
    }

    /// `(x / 255 - mean) / std`.
    #[inline(always)]
    fn scale<S: Simd<V = V>>(&self, s: S, channel: usize, x: V) -> V {
        let unit = divide(s, x, self.white, self.inverse_white);
        let centred = s.sub(unit, self.mean[channel]);
        divide(s, centred, self.std[channel], self.reciprocal[channel])
    }
}

/// `x / divisor`: the product with the reciprocal, and what it is off by, added.
#[inline(always)]
fn divide<S: Simd>(s: S, x: S::V, divisor: S::V, reciprocal: S::V) -> S::V {
    let quotient = s.mul(x, reciprocal);
    let rest = s.neg_mul_add(quotient, divisor, x);
    s.mul_add(rest, reciprocal, quotient)
}

#[cfg(test)]
mod tests;
