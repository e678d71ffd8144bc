//! WebP, lossy and lossless, with or without alpha; the first picture of an animation.

use std::io::Cursor;

use image::ImageDecoder;
use image::codecs::webp::WebPDecoder;

use super::{Source, color};
use crate::error::Result;
use crate::pixels::Image;

pub(super) fn decode(source: &Source<'_>) -> Result<Image<'static>> {
    // The first chunk's header announces the rest of the file.
    let announced = match source.bytes.get(4..8) {
        Some(&[a, b, c, d]) => 8 + u64::from(u32::from_le_bytes([a, b, c, d])),
        _ => return Err(source.truncated("it ends within its header")),
    };
    if (source.bytes.len() as u64) < announced {
        return Err(source.truncated("it ends before the size that it announces"));
    }
    let corrupt = |e: image::ImageError| source.corrupt(e.to_string());
    let decoder = WebPDecoder::new(Cursor::new(source.bytes)).map_err(corrupt)?;
    let (width, height) = decoder.dimensions();
    let (height, width) = source.checked_size(width.into(), height.into())?;
    let channels = usize::from(decoder.color_type().channel_count());
    let mut samples = vec![0; width * height * channels];
    decoder.read_image(&mut samples).map_err(corrupt)?;
    Image::new(color::to_rgb(samples, channels), height, width)
}
