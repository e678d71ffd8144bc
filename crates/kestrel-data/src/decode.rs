//! From a file's bytes to 8-bit RGB pixels: JPEG and PNG, told apart by content, never by the file's name.
//!
//! Strict: a file that is cut off is an error, where most decoders fill up with grey. A JPEG must decode in its decoder's
//! strict mode and reach its end-of-image marker; a PNG must have right checksums and reach its `IEND`. What is not noticed,
//! here as in libjpeg: a JPEG that lost a part of its scan but still has its end.
//!
//! Conversions to RGB, as Pillow's `convert("RGB")` does them:
//!
//! | from | by |
//! |---|---|
//! | grey, with or without alpha | the value three times; alpha dropped |
//! | palette, with or without transparency | the palette's colours |
//! | RGBA | alpha dropped, not blended |
//! | 16-bit RGB, RGBA, grey with alpha | the high byte |
//! | 16-bit grey, CMYK | refused: [`Error::UnsupportedPixels`] |
//!
//! The EXIF orientation is ignored, as torchvision's loaders do. A baseline JPEG's pixels are Pillow's; those of
//! another differ by rounding: by at most 3 of 255 in `tests/golden/jpeg.safetensors`.

use std::io::Cursor;
use std::path::Path;

use image::codecs::png::PngDecoder;
use image::{ColorType, ImageDecoder, Limits};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;

use crate::error::{Error, Result};
use crate::jpeg::Jpeg;
use crate::pixels::{CHANNELS, Image, Region};

/// The most pixels that an image may have: Pillow's limit against decompression bombs.
pub const MAX_PIXELS: u64 = 178_956_970;

/// How many of a file's first bytes tell its format.
pub const SNIFF_BYTES: usize = 12;

/// Tells which part of an image of a given height and width will be looked at; none for all of it.
pub type Choose<'a> = &'a mut dyn FnMut(usize, usize) -> Option<Region>;

/// An image format, by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// JPEG, baseline or progressive.
    Jpeg,
    /// PNG, of any kind.
    Png,
    /// GIF; recognised, not decoded.
    Gif,
    /// WebP; recognised, not decoded.
    WebP,
    /// TIFF; recognised, not decoded.
    Tiff,
}

impl Format {
    /// The format that a file with these first bytes has.
    pub fn sniff(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some(Self::Tiff),
            _ => None,
        }
    }
}

/// Decodes an image file's bytes; `path` is for errors.
///
/// # Errors
/// [`Error::UnsupportedFormat`], [`Error::UnsupportedPixels`], [`Error::TruncatedImage`], [`Error::CorruptImage`], and
/// [`Error::TooLarge`], from the header, before pixels are allocated.
pub fn decode(bytes: &[u8], path: &Path) -> Result<Image<'static>> {
    decode_part(bytes, path, &mut |_, _| None)
}

/// Decodes the part of an image that `choose` picks when it is told the height and the width; all of it for none.
///
/// Baseline JPEGs are spared the work for the rest, which is then black; other files are decoded whole. Damage is found
/// anywhere in the file, in the part or not.
///
/// # Errors
/// Those of [`decode`].
pub fn decode_part(bytes: &[u8], path: &Path, choose: Choose<'_>) -> Result<Image<'static>> {
    let unsupported = |found| {
        Err(Error::UnsupportedFormat {
            path: path.to_path_buf(),
            found,
        })
    };
    match Format::sniff(bytes) {
        Some(Format::Jpeg) => jpeg(bytes, path, choose),
        Some(Format::Png) => png(bytes, path),
        Some(Format::Gif) => unsupported("a GIF"),
        Some(Format::WebP) => unsupported("a WebP"),
        Some(Format::Tiff) => unsupported("a TIFF"),
        None if bytes.is_empty() => unsupported("an empty file"),
        None if bytes.trim_ascii_start().starts_with(b"<") => unsupported("an HTML or XML page"),
        None => unsupported("none that is known"),
    }
}

/// Reads and decodes an image file.
///
/// # Errors
/// [`Error::Io`], and those of [`decode`].
pub fn decode_file(path: &Path) -> Result<Image<'static>> {
    decode(&std::fs::read(path).map_err(Error::io("read", path))?, path)
}

fn check_pixels(width: u64, height: u64, path: &Path) -> Result<()> {
    let got = width.saturating_mul(height);
    if got > MAX_PIXELS {
        let what = "the number of pixels";
        return Err(Error::TooLarge {
            path: path.to_path_buf(),
            what,
            limit: MAX_PIXELS,
            got,
        });
    }
    Ok(())
}

fn jpeg(bytes: &[u8], path: &Path, choose: Choose<'_>) -> Result<Image<'static>> {
    jpeg_end(bytes).map_err(|reason| Error::TruncatedImage {
        path: path.to_path_buf(),
        reason,
    })?;
    if let Some(jpeg) = Jpeg::parse(bytes) {
        let (height, width) = (jpeg.height(), jpeg.width());
        check_pixels(width as u64, height as u64, path)?;
        let all = Region::all(height, width);
        let region = choose(height, width).unwrap_or(all).within(height, width);
        let pixels = jpeg.decode(region).map_err(|reason| Error::CorruptImage {
            path: path.to_path_buf(),
            reason: reason.to_owned(),
        })?;
        return Image::of_part(pixels, region, height, width);
    }
    let corrupt = |e| Error::CorruptImage {
        path: path.to_path_buf(),
        reason: format!("{e:?}"),
    };
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(corrupt)?;
    let no_header = || Error::CorruptImage {
        path: path.to_path_buf(),
        reason: "no frame header".into(),
    };
    let info = decoder.info().ok_or_else(no_header)?;
    let (width, height) = (usize::from(info.width), usize::from(info.height));
    check_pixels(width as u64, height as u64, path)?;
    let grey = match decoder.input_colorspace().ok_or_else(no_header)? {
        ColorSpace::Luma => true,
        ColorSpace::YCbCr | ColorSpace::RGB => false,
        _ => {
            return Err(Error::UnsupportedPixels {
                path: path.to_path_buf(),
                kind: "CMYK",
            });
        }
    };
    let colours = if grey { ColorSpace::Luma } else { ColorSpace::RGB };
    decoder.set_options(options.jpeg_set_out_colorspace(colours));
    let mut pixels = vec![0; width * height * if grey { 1 } else { CHANNELS }];
    decoder.decode_into(&mut pixels).map_err(corrupt)?;
    let pixels = if grey { spread(&pixels, 1, 1) } else { pixels };
    Image::new(pixels, height, width)
}

/// Walks a JPEG's markers to its end-of-image marker; or says what is missing.
fn jpeg_end(bytes: &[u8]) -> std::result::Result<(), &'static str> {
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

fn png(bytes: &[u8], path: &Path) -> Result<Image<'static>> {
    png_end(bytes).map_err(|reason| Error::TruncatedImage {
        path: path.to_path_buf(),
        reason,
    })?;
    let corrupt = |e: image::ImageError| Error::CorruptImage {
        path: path.to_path_buf(),
        reason: e.to_string(),
    };
    // The header is read first, so that a size past the cap is named as such; the limits cover the rest.
    if let Some(&[w0, w1, w2, w3, h0, h1, h2, h3]) = bytes.get(16..24) {
        let (width, height) = (
            u32::from_be_bytes([w0, w1, w2, w3]),
            u32::from_be_bytes([h0, h1, h2, h3]),
        );
        check_pixels(width.into(), height.into(), path)?;
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_PIXELS * 8);
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(corrupt)?;
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    if color == ColorType::L16 {
        return Err(Error::UnsupportedPixels {
            path: path.to_path_buf(),
            kind: "16-bit grey",
        });
    }
    let mut raw = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut raw).map_err(corrupt)?;
    // 16-bit samples come in the machine's byte order.
    let channels = usize::from(color.channel_count());
    let samples: Vec<u8> = if usize::from(color.bytes_per_pixel()) == 2 * channels {
        let (words, _) = raw.as_chunks::<2>();
        words
            .iter()
            .map(|&word| (u16::from_ne_bytes(word) >> 8) as u8)
            .collect()
    } else {
        raw
    };
    let colours = if channels < CHANNELS { 1 } else { CHANNELS };
    let pixels = if channels == CHANNELS {
        samples
    } else {
        spread(&samples, channels, colours)
    };
    Image::new(pixels, height as usize, width as usize)
}

/// Walks a PNG's chunks to its `IEND`; or says what is missing.
fn png_end(bytes: &[u8]) -> std::result::Result<(), &'static str> {
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

/// RGB pixels from `channels` samples a pixel, of which the first `colours` (1 or 3) are grey or RGB.
fn spread(samples: &[u8], channels: usize, colours: usize) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(samples.len() / channels * CHANNELS);
    for pixel in samples.chunks_exact(channels) {
        if colours == CHANNELS {
            pixels.extend_from_slice(&pixel[..CHANNELS]);
        } else {
            pixels.extend_from_slice(&[pixel[0]; CHANNELS]);
        }
    }
    pixels
}
