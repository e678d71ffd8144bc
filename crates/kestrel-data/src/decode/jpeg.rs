//! JPEG: baseline files by [`crate::jpeg`], others by zune-jpeg in its strict mode, which `image` turns off.

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;

use super::{Choose, Source, color};
use crate::error::Result;
use crate::jpeg::Jpeg;
use crate::pixels::{CHANNELS, Image, Region};

pub(super) fn decode(source: &Source<'_>, choose: Choose<'_>) -> Result<Image<'static>> {
    find_end(source.bytes).map_err(|reason| source.truncated(reason))?;
    let Some(jpeg) = source.guarded(|| Ok(Jpeg::parse(source.bytes)))? else {
        return source.guarded(|| decode_other(source));
    };
    let (height, width) = source.checked_size(jpeg.width() as u64, jpeg.height() as u64)?;
    // Not guarded: a fault of the caller is none of the file's.
    let region = choose(height, width).unwrap_or(Region::all(height, width));
    let region = region.within(height, width);
    let pixels = source.guarded(|| jpeg.decode(region).map_err(|reason| source.corrupt(reason)))?;
    Image::of_part(pixels, region, height, width)
}

/// Decodes a file that is not of the baseline kind: progressive, of inks, of an unusual sampling, of several scans.
fn decode_other(source: &Source<'_>) -> Result<Image<'static>> {
    // zune-jpeg 0.5 takes such a file, and gives pixels that have nothing to do with it.
    if has_tall_blocks_in_scans(source.bytes) {
        return Err(source.unsupported("several-scan 4:2:0 or 4:4:0"));
    }
    let corrupt = |e| source.corrupt(format!("{e:?}"));
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(source.bytes), options);
    decoder.decode_headers().map_err(corrupt)?;
    let no_header = || source.corrupt("no frame header");
    let info = decoder.info().ok_or_else(no_header)?;
    let (height, width) = source.checked_size(info.width.into(), info.height.into())?;
    let stored = decoder.input_colorspace().ok_or_else(no_header)?;
    let (colors, channels) = match (info.components, stored) {
        (1, _) => (ColorSpace::Luma, 1),
        (3, _) => (ColorSpace::RGB, CHANNELS),
        (4, ColorSpace::CMYK | ColorSpace::YCCK) => (stored, 4),
        _ => return Err(source.unsupported("neither grey, colour nor CMYK")),
    };
    decoder.set_options(options.jpeg_set_out_colorspace(colors));
    let mut samples = vec![0; width * height * channels];
    decoder.decode_into(&mut samples).map_err(corrupt)?;
    let pixels = match colors {
        ColorSpace::CMYK => cmyk_to_rgb(&samples, |inks| inks),
        ColorSpace::YCCK => cmyk_to_rgb(&samples, ycck_to_cmyk),
        _ => color::to_rgb(samples, channels),
    };
    Image::new(pixels, height, width)
}

/// Whether a baseline file's components are in scans of their own, and one is sampled more than once downwards in a block of all.
fn has_tall_blocks_in_scans(bytes: &[u8]) -> bool {
    const SOF0: u8 = 0xc0;
    const SOF1: u8 = 0xc1;
    const SOS: u8 = 0xda;
    let mut rest = bytes.get(2..).unwrap_or_default();
    let mut frame: &[u8] = &[];
    while let Some((&[0xff, marker, high, low], _)) = rest.split_first_chunk::<4>() {
        if marker == 0xff {
            rest = &rest[1..];
            continue;
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (Some(segment), Some(after)) = (rest.get(4..2 + length), rest.get(2 + length..)) else {
            return false;
        };
        match marker {
            SOF0 | SOF1 => frame = segment,
            SOS => {
                let (components, _) = frame.get(6..).unwrap_or_default().as_chunks::<3>();
                let tall = components.iter().any(|[_, sampling, _]| sampling & 15 > 1);
                return tall
                    && segment
                        .first()
                        .is_some_and(|&count| usize::from(count) < components.len());
            }
            _ => {}
        }
        rest = after;
    }
    false
}

/// RGB from what `stored_inks` makes of four samples: inks, inverted, as Adobe's programs write them and Pillow takes them.
fn cmyk_to_rgb(samples: &[u8], stored_inks: impl Fn([u8; 4]) -> [u8; 4]) -> Vec<u8> {
    let (pixels, _) = samples.as_chunks::<4>();
    let rgb = |&pixel: &[u8; 4]| color::inks_to_rgb(stored_inks(pixel).map(|stored| 255 - stored));
    pixels.iter().flat_map(rgb).collect()
}

/// libjpeg's conversion, in its 16-bit fixed-point numbers; the black stays.
fn ycck_to_cmyk([y, cb, cr, black]: [u8; 4]) -> [u8; 4] {
    const HALF: i32 = 1 << 15;
    let fixed = |x: f64| (x * 65_536.0 + 0.5) as i32;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((fixed(1.402) * cr + HALF) >> 16);
    let green = y + ((-fixed(0.344_14) * cb - fixed(0.714_14) * cr + HALF) >> 16);
    let blue = y + ((fixed(1.772) * cb + HALF) >> 16);
    let ink = |light: i32| (255 - light).clamp(0, 255) as u8;
    [ink(red), ink(green), ink(blue), black]
}

/// Walks a JPEG's markers to its end-of-image marker; or says what is missing.
fn find_end(bytes: &[u8]) -> std::result::Result<(), &'static str> {
    const TEM: u8 = 0x01;
    const SOI: u8 = 0xd8;
    const EOI: u8 = 0xd9;
    const NO_END: &str = "it has no end-of-image marker";
    // Within a scan, 0xff 0x00 is data, and restart markers (0xd0 to 0xd7) belong to it; so this also skips scan data.
    let mut position = 0;
    loop {
        let rest = bytes.get(position..).ok_or(NO_END)?;
        position += memchr::memchr(0xff, rest).ok_or(NO_END)? + 1;
        match *bytes.get(position).ok_or(NO_END)? {
            // A fill byte: the next may be the marker's.
            0xff => {}
            0x00 | TEM | SOI | 0xd0..=0xd7 => position += 1,
            EOI => return Ok(()),
            _ => match bytes.get(position + 1..position + 3) {
                Some(&[high, low]) => position += 1 + usize::from(u16::from_be_bytes([high, low])),
                _ => return Err("it ends within a marker segment"),
            },
        }
    }
}
