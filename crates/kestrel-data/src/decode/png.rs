//! PNG, of every colour type, depth and interlacing, by `image`'s decoder.

use std::io::Cursor;

use image::codecs::png::PngDecoder;
use image::{ColorType, ImageDecoder, Limits};

use super::{Source, color};
use crate::error::Result;
use crate::pixels::Image;

/// Where the header's colour type stands.
const COLOR_TYPE_AT: usize = 25;
const GREY: u8 = 0;

pub(super) fn decode(source: &Source<'_>) -> Result<Image<'static>> {
    find_end(source.bytes).map_err(|reason| source.truncated(reason))?;
    let corrupt = |e: image::ImageError| source.corrupt(e.to_string());
    // The header is read first, so that a size past the cap is named as such; the limits cover the rest.
    if let Some(&[w0, w1, w2, w3, h0, h1, h2, h3]) = source.bytes.get(16..24) {
        let (width, height) = (
            u32::from_be_bytes([w0, w1, w2, w3]),
            u32::from_be_bytes([h0, h1, h2, h3]),
        );
        source.checked_size(width.into(), height.into())?;
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(source.max_bytes());
    let decoder = PngDecoder::with_limits(Cursor::new(source.bytes), limits).map_err(corrupt)?;
    let (width, height) = decoder.dimensions();
    let (height, width) = source.checked_size(width.into(), height.into())?;
    let color = decoder.color_type();
    let mut raw = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut raw).map_err(corrupt)?;
    let channels = usize::from(color.channel_count());
    let samples = match color {
        ColorType::L8 | ColorType::La8 | ColorType::Rgb8 | ColorType::Rgba8 => raw,
        _ => {
            // 16-bit samples come in the machine's byte order.
            let (words, _) = raw.as_chunks::<2>();
            let words = words.iter().map(|&word| u16::from_ne_bytes(word));
            // Grey with a transparent value comes with alpha, but Pillow reads it as grey.
            if source.bytes.get(COLOR_TYPE_AT) == Some(&GREY) {
                color::clipped(words)
            } else {
                color::high_bytes(words)
            }
        }
    };
    Image::new(color::to_rgb(samples, channels), height, width)
}

/// Walks a PNG's chunks to its `IEND`; or says what is missing.
fn find_end(bytes: &[u8]) -> std::result::Result<(), &'static str> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    loop {
        let Some((&[l0, l1, l2, l3, ref kind @ ..], after)) = rest.split_first_chunk::<8>() else {
            return Err("it has no IEND chunk");
        };
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        // The data, then four bytes of checksum.
        let next = length.checked_add(4).and_then(|size| after.get(size..));
        rest = next.ok_or("it ends within a chunk")?;
        if kind == b"IEND" {
            return Ok(());
        }
    }
}
