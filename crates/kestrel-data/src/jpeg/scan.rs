//! The scan: its codes into blocks of samples, of those blocks that are looked at.

use kestrel_kernels::simd::{Isa, Kernel, Simd};

use super::bits::{Bits, PADDING};
use super::header::{Component, Header};
use super::huffman::ZIGZAG;
use super::idct;
use crate::pixels::Region;

const DAMAGED: &str = "the scan has codes that mean nothing";
const SHORT: &str = "the scan ends before the image does";

/// A scan's bytes without the stuffing after 0xff, cut at the restart markers.
#[derive(Default)]
pub(super) struct Unstuffed {
    bytes: Vec<u8>,
    /// Where each piece ends.
    ends: Vec<usize>,
    mcus_a_piece: usize,
}

impl Unstuffed {
    /// Reads the scan up to its first marker that is no restart.
    pub(super) fn read(&mut self, scan: &[u8], interval: usize, num_mcus: usize) -> Result<(), &'static str> {
        self.bytes.clear();
        self.ends.clear();
        self.mcus_a_piece = if interval == 0 { num_mcus } else { interval };
        let mut rest = scan;
        loop {
            let at = memchr::memchr(0xff, rest).ok_or(SHORT)?;
            self.bytes.extend_from_slice(&rest[..at]);
            match rest.get(at + 1).ok_or(SHORT)? {
                0x00 => {
                    self.bytes.push(0xff);
                    rest = &rest[at + 2..];
                }
                // A fill byte: the marker follows.
                0xff => rest = &rest[at + 1..],
                0xd0..=0xd7 if interval > 0 => {
                    self.ends.push(self.bytes.len());
                    rest = &rest[at + 2..];
                }
                _ => break,
            }
        }
        self.ends.push(self.bytes.len());
        self.bytes.extend_from_slice(&[0; PADDING]);
        if self.ends.len() == num_mcus.div_ceil(self.mcus_a_piece) {
            Ok(())
        } else {
            Err("the scan has too few or too many restart markers")
        }
    }

    /// The pieces, each with the bytes after it.
    fn pieces(&self) -> impl Iterator<Item = (Bits<'_>, usize)> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let piece =
            |(start, &end): (usize, &usize)| (Bits::new(self.bytes.get(start..).unwrap_or_default()), end - start);
        starts.zip(&self.ends).map(piece)
    }
}

/// The samples of one component that are looked at, in whole blocks.
#[derive(Default)]
pub(super) struct Plane {
    pub(super) samples: Vec<u8>,
    /// The first block, across and down, and how many.
    first: (usize, usize),
    count: (usize, usize),
}

impl Plane {
    pub(super) fn stride(&self) -> usize {
        self.count.0 * 8
    }

    /// Row `y` of the component, from column `x` on.
    #[inline(always)]
    pub(super) fn row(&self, y: usize, x: usize) -> &[u8] {
        let start = (y - self.first.1 * 8) * self.stride();
        &self.samples[start..start + self.stride()][x - self.first.0 * 8..]
    }

    /// Where a block's samples start, if it is looked at.
    #[inline(always)]
    fn offset(&self, across: usize, down: usize) -> Option<usize> {
        let (x, y) = (across.wrapping_sub(self.first.0), down.wrapping_sub(self.first.1));
        (x < self.count.0 && y < self.count.1).then(|| y * 8 * self.stride() + x * 8)
    }
}

/// The samples of all components.
#[derive(Default)]
pub(super) struct Planes {
    pub(super) components: [Plane; 3],
}

impl Planes {
    /// Makes room for what the pixels of `region` depend on.
    pub(super) fn cover(&mut self, header: &Header<'_>, region: Region) {
        let (h_max, v_max) = header.components.first().map_or((1, 1), |luma| (luma.h, luma.v));
        for (plane, component) in self.components.iter_mut().zip(&header.components) {
            let across = blocks(region.left, region.width, h_max / component.h, component.width);
            let down = blocks(region.top, region.height, v_max / component.v, component.height);
            plane.first = (across.0, down.0);
            plane.count = (across.1, down.1);
            // Every block that counts is written, so what is left from another image does not matter.
            plane.samples.resize(plane.count.0 * plane.count.1 * 64, 0);
        }
    }
}

/// First block and number of blocks along an axis for `count` pixels from `start` on, with `factor` pixels a sample, where the
/// component has `size` samples. An upsampled pixel also looks at the samples beside its own.
fn blocks(start: usize, count: usize, factor: usize, size: usize) -> (usize, usize) {
    let margin = usize::from(factor > 1);
    let first = (start / factor).saturating_sub(margin) / 8;
    let last = ((start + count - 1) / factor + margin).min(size - 1) / 8;
    (first, last - first + 1)
}

/// Decodes a scan into the planes.
pub(super) fn decode(header: &Header<'_>, scan: &Unstuffed, planes: &mut Planes) -> Result<(), &'static str> {
    Isa::detect().dispatch(Decode { header, scan, planes })
}

struct Decode<'a> {
    header: &'a Header<'a>,
    scan: &'a Unstuffed,
    planes: &'a mut Planes,
}

impl Kernel for Decode<'_> {
    type Output = Result<(), &'static str>;

    fn run<S: Simd>(self, s: S) -> Self::Output {
        s.vectorize(Mcus(self))
    }
}

struct Mcus<'a>(Decode<'a>);

impl Kernel for Mcus<'_> {
    type Output = Result<(), &'static str>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Self::Output {
        let Decode { header, scan, planes } = self.0;
        let across = header.mcus.0;
        for (piece, (mut bits, bytes)) in scan.pieces().enumerate() {
            let first = piece * scan.mcus_a_piece;
            let last = header.num_mcus().min(first + scan.mcus_a_piece);
            let mut previous = [0; 3];
            let (mut x, mut y) = (first % across, first / across);
            for _ in first..last {
                for ((component, plane), previous) in
                    header.components.iter().zip(&mut planes.components).zip(&mut previous)
                {
                    for v in 0..component.v {
                        for h in 0..component.h {
                            let offset = plane.offset(x * component.h + h, y * component.v + v);
                            let stride = plane.stride();
                            let out = offset.map(|offset| (&mut plane.samples[offset..], stride));
                            block(&mut bits, component, previous, out).ok_or(DAMAGED)?;
                        }
                    }
                }
                x += 1;
                if x == across {
                    (x, y) = (0, y + 1);
                }
            }
            if bits.consumed() > bytes * 8 {
                return Err(SHORT);
            }
        }
        Ok(())
    }
}

/// Reads a block, and makes its samples if they are looked at.
#[inline(always)]
fn block(
    bits: &mut Bits<'_>,
    component: &Component,
    previous: &mut i32,
    out: Option<(&mut [u8], usize)>,
) -> Option<()> {
    *previous = previous.wrapping_add(component.dc.difference(bits)?);
    let Some((out, stride)) = out else {
        return component.ac.leap(bits);
    };
    let mut coefficients = [0; 64];
    let quantization = &component.quantization;
    coefficients[0] = (*previous as i16).wrapping_mul(quantization[0]);
    let mut flat = true;
    component.ac.coefficients(bits, |k, value| {
        coefficients[usize::from(ZIGZAG[k]) & 63] = value.wrapping_mul(quantization[k]);
        flat = false;
    })?;
    if flat {
        idct::inverse_flat(coefficients[0], out, stride);
    } else {
        idct::inverse(&coefficients, out, stride);
    }
    Some(())
}
