//! BMP: palettes, 16, 24 and 32 bits, run lengths.

use std::io::Cursor;

use image::ImageDecoder;
use image::codecs::bmp::BmpDecoder;

use super::{Source, color};
use crate::error::Result;
use crate::pixels::Image;

/// The size of OS/2's header, whose dimensions have 16 bits.
const CORE_HEADER: u8 = 12;

pub(super) fn decode(source: &Source<'_>) -> Result<Image<'static>> {
    let (width, height) = announced_size(source.bytes).ok_or_else(|| source.truncated("it ends within its header"))?;
    source.checked_size(width, height)?;
    if packed_end(source.bytes).is_some_and(|end| end > source.bytes.len() as u64) {
        return Err(source.truncated("it ends within its pixels"));
    }
    let corrupt = |e: image::ImageError| match &e {
        image::ImageError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
            source.truncated("it ends within its pixels")
        }
        _ => source.corrupt(e.to_string()),
    };
    let decoder = BmpDecoder::new(Cursor::new(source.bytes)).map_err(corrupt)?;
    let (width, height) = decoder.dimensions();
    let (height, width) = source.checked_size(width.into(), height.into())?;
    let channels = usize::from(decoder.color_type().channel_count());
    let mut samples = vec![0; width * height * channels];
    decoder.read_image(&mut samples).map_err(corrupt)?;
    let mut pixels = color::to_rgb(samples, channels);
    if let Some(bits) = narrow_channels(source.bytes) {
        for pixel in pixels.as_chunks_mut::<3>().0 {
            for (value, bits) in pixel.iter_mut().zip(bits) {
                *value = rounded_down(*value, bits);
            }
        }
    }
    Image::new(pixels, height, width)
}

/// Bits of red, green and blue, if a pixel has 16 in all.
fn narrow_channels(bytes: &[u8]) -> Option<[u32; 3]> {
    if *bytes.get(14)? == CORE_HEADER || bytes.get(28..30)? != [16, 0] {
        return None;
    }
    const BIT_FIELDS: u8 = 3;
    if *bytes.get(30)? != BIT_FIELDS {
        return Some([5; 3]);
    }
    let (masks, _) = bytes.get(54..66)?.as_chunks::<4>();
    let bits = |at: usize| masks.get(at).map(|&mask| u32::from_le_bytes(mask).count_ones());
    Some([bits(0)?, bits(1)?, bits(2)?])
}

/// A channel of `bits` bits scaled to 255 and rounded down, as Pillow does it, from the same rounded to nearest, as the decoder
/// gives it.
fn rounded_down(value: u8, bits: u32) -> u8 {
    if !(1..8).contains(&bits) {
        return value;
    }
    let most = (1u32 << bits) - 1;
    let stored = (u32::from(value) * most + 127) / 255;
    (stored * 255 / most) as u8
}

/// Width and height by the header; rows from top to bottom have a negative height.
fn announced_size(bytes: &[u8]) -> Option<(u64, u64)> {
    if *bytes.get(14)? == CORE_HEADER {
        let &[w0, w1, h0, h1] = bytes.get(18..22)? else {
            return None;
        };
        return Some((u16::from_le_bytes([w0, w1]).into(), u16::from_le_bytes([h0, h1]).into()));
    }
    let &[w0, w1, w2, w3, h0, h1, h2, h3] = bytes.get(18..26)? else {
        return None;
    };
    let width = i32::from_le_bytes([w0, w1, w2, w3]).unsigned_abs();
    let height = i32::from_le_bytes([h0, h1, h2, h3]).unsigned_abs();
    Some((width.into(), height.into()))
}

/// Where run-length-encoded pixels end by the header, if it says so; a decoder takes a missing end of the last run.
fn packed_end(bytes: &[u8]) -> Option<u64> {
    let word = |at: usize| match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => Some(u32::from_le_bytes([a, b, c, d])),
        _ => None,
    };
    let run_lengths = *bytes.get(14)? != CORE_HEADER && matches!(word(30)?, 1 | 2);
    run_lengths.then(|| Some(u64::from(word(10)?) + u64::from(word(34)?)))?
}
