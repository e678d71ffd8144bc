//! From samples to pixels: chroma brought to the size of luma, and YCbCr to RGB, by libjpeg's integers.

use kestrel_kernels::simd::{Isa, Kernel, Simd};

use super::header::Header;
use super::scan::{Plane, Planes};
use crate::pixels::{CHANNELS, Region};

/// Rows of values that a thread uses again.
#[derive(Default)]
pub(super) struct Rows {
    /// Three parts of a chroma sample of the nearer row and one of the farther, or the sample itself.
    mixed: Vec<u16>,
    cb: Vec<u8>,
    cr: Vec<u8>,
}

/// The pixels of a region.
pub(super) fn convert(header: &Header<'_>, planes: &Planes, region: Region, rows: &mut Rows) -> Vec<u8> {
    let mut out = vec![0; region.height * region.width * CHANNELS];
    Isa::detect().dispatch(Convert {
        header,
        planes,
        region,
        rows,
        out: &mut out,
    });
    out
}

struct Convert<'a> {
    header: &'a Header<'a>,
    planes: &'a Planes,
    region: Region,
    rows: &'a mut Rows,
    out: &'a mut [u8],
}

impl Kernel for Convert<'_> {
    type Output = ();

    fn run<S: Simd>(self, s: S) {
        s.vectorize(Pixels(self));
    }
}

struct Pixels<'a>(Convert<'a>);

impl Kernel for Pixels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Convert {
            header,
            planes,
            region,
            rows,
            out,
        } = self.0;
        let [luma, cb, cr] = &planes.components;
        for (y, out) in (region.top..).zip(out.chunks_exact_mut(region.width * CHANNELS)) {
            let luma = &luma.row(y, region.left)[..region.width];
            match header.components.as_slice() {
                [of_luma, of_chroma, _] => {
                    let factors = (of_luma.h, of_luma.v);
                    let size = (of_chroma.width, of_chroma.height);
                    let Rows {
                        mixed,
                        cb: cb_row,
                        cr: cr_row,
                    } = rows;
                    let blue = upsample(cb, size, factors, y, region, mixed, cb_row);
                    let red = upsample(cr, size, factors, y, region, mixed, cr_row);
                    to_rgb(luma, blue, red, out);
                }
                _ => {
                    for (pixel, &value) in out.as_chunks_mut::<CHANNELS>().0.iter_mut().zip(luma) {
                        *pixel = [value; CHANNELS];
                    }
                }
            }
        }
    }
}

/// Row `y` of a chroma component of `size` (width, height) samples, as wide as the region.
///
/// Each new sample is three parts the nearest sample and one part the next nearest, along each axis that is halved; the rounding
/// alternates. At the image's edges the sample itself stands in for the one that is missing.
#[inline(always)]
fn upsample<'a>(
    plane: &'a Plane,
    size: (usize, usize),
    factors: (usize, usize),
    y: usize,
    region: Region,
    mixed: &mut Vec<u16>,
    row: &'a mut Vec<u8>,
) -> &'a [u8] {
    let (left, width) = (region.left, region.width);
    if factors.0 == 1 {
        return &plane.row(y, left)[..width];
    }
    // The samples first..=last are those of the region's pixels; the mixed row has one more on each side.
    let (first, last) = (left / 2, (left + width - 1) / 2);
    let (from, to) = (first.saturating_sub(1), (last + 1).min(size.0 - 1));
    let (before, after) = (usize::from(first == 0), usize::from(last + 1 == size.0));
    let count = to - from + 1;
    mixed.clear();
    mixed.resize(last - first + 3, 0);
    let middle = &mut mixed[before..before + count];
    if factors.1 == 2 {
        let near_y = y / 2;
        let far_y = if y.is_multiple_of(2) {
            near_y.saturating_sub(1)
        } else {
            (near_y + 1).min(size.1 - 1)
        };
        let (near, far) = (&plane.row(near_y, from)[..count], &plane.row(far_y, from)[..count]);
        for ((mixed, &near), &far) in middle.iter_mut().zip(near).zip(far) {
            *mixed = 3 * u16::from(near) + u16::from(far);
        }
    } else {
        for (mixed, &sample) in middle.iter_mut().zip(&plane.row(y, from)[..count]) {
            *mixed = u16::from(sample);
        }
    }
    let end = mixed.len() - 1;
    if before == 1 {
        mixed[0] = mixed[1];
    }
    if after == 1 {
        mixed[end] = mixed[end - 1];
    }
    // The sum has 2 bits more than a sample for each axis that is halved.
    let (shift, even, odd) = if factors.1 == 2 { (4, 8, 7) } else { (2, 1, 2) };
    row.resize(2 * (last - first + 1), 0);
    let (pairs, _) = row.as_chunks_mut::<2>();
    let neighbours = mixed.iter().zip(&mixed[1..]).zip(&mixed[2..]);
    for (pair, ((&previous, &this), &next)) in pairs.iter_mut().zip(neighbours) {
        *pair = [
            ((3 * this + previous + even) >> shift) as u8,
            ((3 * this + next + odd) >> shift) as u8,
        ];
    }
    &row[left - 2 * first..][..width]
}

/// ITU-R BT.601, full range, in fixed point with 16 bits: libjpeg's `jdcolor.c`.
#[inline(always)]
fn to_rgb(luma: &[u8], cb: &[u8], cr: &[u8], out: &mut [u8]) {
    const HALF: i32 = 1 << 15;
    let (pixels, _) = out.as_chunks_mut::<CHANNELS>();
    for (((pixel, &y), &cb), &cr) in pixels.iter_mut().zip(luma).zip(cb).zip(cr) {
        let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
        let red = y + ((91_881 * cr + HALF) >> 16);
        let green = y + ((-22_554 * cb - 46_802 * cr + HALF) >> 16);
        let blue = y + ((116_130 * cb + HALF) >> 16);
        *pixel = [
            red.clamp(0, 255) as u8,
            green.clamp(0, 255) as u8,
            blue.clamp(0, 255) as u8,
        ];
    }
}
