//! From a file's bytes to 8-bit RGB pixels: JPEG, PNG, WebP, BMP, GIF and TIFF, told apart by content, never by the name.
//!
//! Strict: a file that is cut off is an error, where most decoders fill up with grey. A JPEG must decode in its decoder's
//! strict mode and reach its end-of-image marker, a PNG must have right checksums and reach its `IEND`, a GIF its trailer, a
//! WebP the size that it announces; a BMP or TIFF must have all of its pixels. What is not noticed, here as in libjpeg: a JPEG
//! that lost a part of its scan but still has its end. Sizes are checked by the header, before pixels are allocated.
//!
//! Conversions to RGB, equal to Pillow's `Image.open(file).convert("RGB")`, which is what torchvision's loader does:
//!
//! | from | by |
//! |---|---|
//! | grey of 1, 2, 4 or 8 bits, with or without alpha | the value, scaled to 255, three times; alpha dropped |
//! | palette, with or without transparency | the palette's colours; an index past the palette is black |
//! | RGBA, or RGB with a transparent colour | alpha dropped, not blended |
//! | 16-bit RGB, RGBA, grey with alpha | the high byte |
//! | 16-bit grey | `min(value, 255)`: Pillow clips here, so that most such images are white; in a TIFF also where 0 is white |
//! | CMYK and YCCK | `(255 - K) - round(ink (255 - K) / 255)` a channel; a JPEG's inks are inverted, as Adobe writes them |
//! | 16-bit BMP | each of 5 or 6 bits scaled to 255, rounded down |
//! | GIF, WebP, TIFF of several pictures | the first; where a GIF's first leaves its screen free, the colour of the transparent index, or of index 0 |
//! | float and 32-bit samples, Lab, planar TIFF, premultiplied alpha | refused: [`Error::UnsupportedPixels`] |
//! | a baseline JPEG of several scans with 4:2:0 or 4:4:0 | refused likewise |
//!
//! The EXIF orientation is ignored, as Pillow and torchvision's loaders do: an image comes as it is stored. Only a TIFF is turned as
//! its orientation says, as these do too.
//!
//! The pixels of a baseline JPEG of one scan, grey or with 4:4:4, 4:2:2 or 4:2:0, are Pillow's. Those of any other, progressive, of
//! several scans, of another sampling, of RGB or of inks, come from another decoder and differ by rounding, by at most 3 of
//! 255 in `tests/golden/jpeg.safetensors` and `lossy_formats.safetensors`; those of a lossy WebP do not there. All other formats are
//! equal (`conversions.safetensors`, `formats.safetensors`).

mod bmp;
mod color;
mod gif;
mod jpeg;
mod orientation;
mod png;
mod tiff;
mod webp;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::error::{Error, Result};
use crate::loader::panic_message;
use crate::pixels::{Image, Region};

/// The most pixels that an image may have: Pillow's limit against decompression bombs.
pub const MAX_PIXELS: u64 = 178_956_970;

/// How many of a file's first bytes tell its format.
pub const SNIFF_BYTES: usize = 18;

/// Tells which part of an image of a given height and width will be looked at; none for all of it.
pub type Choose<'a> = &'a mut dyn FnMut(usize, usize) -> Option<Region>;

/// An image format, by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Format {
    /// JPEG, baseline or progressive.
    Jpeg,
    /// PNG, of any kind.
    Png,
    /// WebP, lossy or lossless; of an animation the first picture.
    WebP,
    /// BMP.
    Bmp,
    /// GIF; of an animation the first picture.
    Gif,
    /// TIFF, the first picture.
    Tiff,
}

impl Format {
    /// The format that a file with these first bytes ([`SNIFF_BYTES`] of them, if it has as many) has.
    pub fn sniff(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some(Self::Tiff),
            // Two letters are weak, so the size of the second header is asked too.
            [b'B', b'M', rest @ ..] => match rest.get(12..16) {
                Some([12 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0]) => Some(Self::Bmp),
                _ => None,
            },
            _ => None,
        }
    }

    /// The endings that files of this format have, in lower case.
    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Jpeg => &["jpg", "jpeg", "jpe", "jfif"],
            Self::Png => &["png"],
            Self::WebP => &["webp"],
            Self::Bmp => &["bmp", "dib"],
            Self::Gif => &["gif"],
            Self::Tiff => &["tif", "tiff"],
        }
    }

    /// The format's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
            Self::Tiff => "TIFF",
        }
    }
}

/// Decodes an image file's bytes; `path` is for errors.
///
/// # Errors
/// [`Error::UnsupportedFormat`], [`Error::UnsupportedPixels`], [`Error::TruncatedImage`], [`Error::CorruptImage`] (also
/// where a decoder panics), and [`Error::TooLarge`], from the header, before pixels are allocated.
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
    decode_within(bytes, path, MAX_PIXELS, choose)
}

/// [`decode_part`] of an image of at most `max_pixels` pixels, for bytes from strangers; [`MAX_PIXELS`] stays the limit above it.
///
/// # Errors
/// Those of [`decode`].
pub fn decode_within(bytes: &[u8], path: &Path, max_pixels: u64, choose: Choose<'_>) -> Result<Image<'static>> {
    let unsupported = |found| {
        Err(Error::UnsupportedFormat {
            path: path.to_path_buf(),
            found,
        })
    };
    let source = Source {
        bytes,
        path,
        max_pixels: max_pixels.min(MAX_PIXELS),
    };
    let decoder = match Format::sniff(bytes) {
        Some(Format::Jpeg) => return jpeg::decode(&source, choose),
        Some(Format::Png) => png::decode,
        Some(Format::WebP) => webp::decode,
        Some(Format::Bmp) => bmp::decode,
        Some(Format::Gif) => gif::decode,
        Some(Format::Tiff) => tiff::decode,
        None if bytes.is_empty() => return unsupported("an empty file"),
        None if bytes.trim_ascii_start().starts_with(b"<") => return unsupported("an HTML or XML page"),
        None => return unsupported("none that is known"),
    };
    source.guarded(|| decoder(&source))
}

/// Reads and decodes an image file.
///
/// # Errors
/// [`Error::Io`], and those of [`decode`].
pub fn decode_file(path: &Path) -> Result<Image<'static>> {
    decode(&std::fs::read(path).map_err(Error::io("read", path))?, path)
}

/// A file's bytes, with its path for errors.
struct Source<'a> {
    bytes: &'a [u8],
    path: &'a Path,
    max_pixels: u64,
}

impl Source<'_> {
    /// Runs a decoder: one that falls over a hostile file must not take the run with it, nor leave the file unnamed.
    fn guarded<T>(&self, decoder: impl FnOnce() -> Result<T>) -> Result<T> {
        // What a decoder leaves half done is dropped, or cleared before the next image.
        catch_unwind(AssertUnwindSafe(decoder)).unwrap_or_else(|payload| {
            let message = panic_message(payload.as_ref());
            Err(self.corrupt(format!("its decoder panicked: {message}")))
        })
    }

    fn truncated(&self, reason: &'static str) -> Error {
        Error::TruncatedImage {
            path: self.path.to_path_buf(),
            reason,
        }
    }

    fn corrupt(&self, reason: impl Into<String>) -> Error {
        Error::CorruptImage {
            path: self.path.to_path_buf(),
            reason: reason.into(),
        }
    }

    fn unsupported(&self, kind: &'static str) -> Error {
        Error::UnsupportedPixels {
            path: self.path.to_path_buf(),
            kind,
        }
    }

    /// What a decoder may allocate: 16-bit RGBA, or what one needs for itself whatever the image.
    fn max_bytes(&self) -> u64 {
        (self.max_pixels * 8).max(1 << 20)
    }

    /// Refuses sizes past the cap, and images without pixels; gives the size as `(height, width)`.
    fn checked_size(&self, width: u64, height: u64) -> Result<(usize, usize)> {
        let got = width.saturating_mul(height);
        if got > self.max_pixels {
            return Err(Error::TooLarge {
                path: self.path.to_path_buf(),
                what: "the number of pixels",
                limit: self.max_pixels,
                got,
            });
        }
        if got == 0 {
            return Err(self.corrupt("it has no pixels"));
        }
        Ok((height as usize, width as usize))
    }
}
