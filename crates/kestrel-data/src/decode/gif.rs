//! GIF: the first picture, on the screen that it is drawn on.

use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions, MemoryLimit};

use super::{Source, color};
use crate::error::Result;
use crate::pixels::Image;

pub(super) fn decode(source: &Source<'_>) -> Result<Image<'static>> {
    let (width, height) = walk(source.bytes).map_err(|reason| source.truncated(reason))?;
    source.checked_size(width, height)?;
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    if let Some(limit) = std::num::NonZeroU64::new(source.max_pixels) {
        options.set_memory_limit(MemoryLimit::Bytes(limit));
    }
    let corrupt = |e: gif::DecodingError| source.corrupt(e.to_string());
    let mut decoder = options.read_info(Cursor::new(source.bytes)).map_err(corrupt)?;
    let global = decoder.global_palette().map(<[u8]>::to_vec);
    let no_picture = || source.corrupt("it holds no picture");
    let frame = decoder.read_next_frame().map_err(corrupt)?.ok_or_else(no_picture)?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (frame_width, frame_height) = (usize::from(frame.width), usize::from(frame.height));
    let (height, width) = source.checked_size(
        width.max((left + frame_width) as u64),
        height.max((top + frame_height) as u64),
    )?;
    let local = frame.palette.as_deref().or(global.as_deref()).unwrap_or_default();
    let (colors, _) = local.as_chunks::<3>();
    let palette = color::palette(colors.iter().copied());
    let mut screen = vec![frame.transparent.unwrap_or(0); width * height];
    if frame_width > 0 {
        let rows = frame.buffer.chunks_exact(frame_width);
        if rows.len() != frame_height {
            return Err(source.truncated("its first picture lacks rows"));
        }
        for (row, target) in rows.zip(screen.chunks_exact_mut(width).skip(top)) {
            target[left..left + frame_width].copy_from_slice(row);
        }
    }
    Image::new(color::look_up(&screen, &palette), height, width)
}

/// Walks the blocks to the trailer and gives the larger of the screen and the pictures, width and height; or says what is
/// missing.
fn walk(bytes: &[u8]) -> std::result::Result<(u64, u64), &'static str> {
    const CUT: &str = "it ends before its trailer";
    let (&[w0, w1, h0, h1, flags, _, _], mut rest) = bytes
        .get(6..)
        .and_then(<[u8]>::split_first_chunk::<7>)
        .ok_or("it ends within its header")?;
    let (width, height) = (u16::from_le_bytes([w0, w1]), u16::from_le_bytes([h0, h1]));
    rest = rest.get(palette_bytes(flags)..).ok_or(CUT)?;
    loop {
        let (&block, after) = rest.split_first().ok_or(CUT)?;
        rest = match block {
            b';' => return Ok((width.into(), height.into())),
            b'!' => sub_blocks(after.get(1..).ok_or(CUT)?).ok_or(CUT)?,
            b',' => {
                let (&[.., flags], after) = after.split_first_chunk::<9>().ok_or(CUT)?;
                // The local palette, and the first code's size.
                sub_blocks(after.get(palette_bytes(flags) + 1..).ok_or(CUT)?).ok_or(CUT)?
            }
            // Bytes between blocks; the decoder says what it makes of them.
            _ => after,
        };
    }
}

fn palette_bytes(flags: u8) -> usize {
    if flags & 0x80 == 0 { 0 } else { 6 << (flags & 7) }
}

/// What follows a list of sub-blocks, each a length and as many bytes, up to an empty one.
fn sub_blocks(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let (&length, after) = rest.split_first()?;
        rest = after.get(usize::from(length)..)?;
        if length == 0 {
            return Some(rest);
        }
    }
}
