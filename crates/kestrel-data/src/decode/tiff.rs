//! TIFF: the first picture; grey, palette, RGB, CMYK, with or without alpha, in every compression that the decoder knows. It
//! comes turned as its orientation says, which Pillow does for this format alone.

use std::borrow::Cow;
use std::io::Cursor;

use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;
use tiff::{ColorType, TiffError};

use super::orientation::upright;
use super::{Source, color};
use crate::error::{Error, Result};
use crate::pixels::{CHANNELS, Image};

/// `PlanarConfiguration`: the samples of each colour lie in a plane of their own.
const PLANAR: u32 = 2;
/// `PhotometricInterpretation`: grey of which 0 is white.
const WHITE_IS_ZERO: u16 = 0;
/// `ExtraSamples`: alpha that the colours are multiplied by.
const PREMULTIPLIED: u16 = 1;

pub(super) fn decode(source: &Source<'_>) -> Result<Image<'static>> {
    let corrupt = |e: TiffError| match e {
        TiffError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
            source.truncated("it ends within its pixels or its directory")
        }
        e => source.corrupt(e.to_string()),
    };
    let mut limits = Limits::default();
    limits.decoding_buffer_size = source.max_bytes() as usize;
    limits.intermediate_buffer_size = source.max_bytes() as usize;
    let directory = Directory::first(source.bytes).filter(Directory::fits);
    let directory =
        directory.ok_or_else(|| source.truncated("it ends within its directory, or before a value of it"))?;
    let (bytes, has_palette) = directory.palette_as_grey();
    let decoder = Decoder::new(Cursor::new(bytes.as_ref()));
    let mut decoder = decoder.map_err(corrupt)?.with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(corrupt)?;
    let (height, width) = source.checked_size(width.into(), height.into())?;
    let kind = decoder.colortype().map_err(corrupt)?;
    let planar = decoder
        .find_tag_unsigned::<u32>(Tag::PlanarConfiguration)
        .map_err(corrupt)?;
    if planar == Some(PLANAR) && kind.num_samples() > 1 {
        return Err(source.unsupported("planar"));
    }
    let extra = decoder
        .find_tag_unsigned_vec::<u16>(Tag::ExtraSamples)
        .map_err(corrupt)?;
    if extra.is_some_and(|extra| extra.contains(&PREMULTIPLIED)) {
        return Err(source.unsupported("alpha-premultiplied"));
    }
    let photometric = decoder
        .find_tag_unsigned::<u16>(Tag::PhotometricInterpretation)
        .map_err(corrupt)?;
    // What is no number orders nothing.
    let orientation = decoder.find_tag_unsigned::<u16>(Tag::Orientation).ok().flatten();
    check_bytes(source, &mut decoder, corrupt)?;
    let samples = match decoder.read_image().map_err(corrupt)? {
        DecodingResult::U8(samples) => Samples::Bytes(samples),
        DecodingResult::U16(samples) => Samples::Words(samples),
        _ => return Err(source.unsupported("neither 8-bit nor 16-bit")),
    };
    let pixels = match (kind, samples) {
        (ColorType::Gray(bits @ (1 | 2 | 4 | 8)), Samples::Bytes(packed)) if has_palette => {
            let map = decoder.get_tag_u16_vec(Tag::ColorMap).map_err(corrupt)?;
            let plane = map.len() / 3;
            let colors = (0..plane).map(|i| [map[i], map[plane + i], map[2 * plane + i]].map(|word| (word >> 8) as u8));
            color::look_up(&unpacked(&packed, width, height, bits), &color::palette(colors))
        }
        (ColorType::Gray(bits @ (1 | 2 | 4)), Samples::Bytes(packed)) => {
            let scale = 255 / ((1 << bits) - 1);
            let values = unpacked(&packed, width, height, bits);
            color::to_rgb(values.iter().map(|&value| value * scale).collect(), 1)
        }
        (ColorType::CMYK(8), Samples::Bytes(inks)) => {
            let (pixels, _) = inks.as_chunks::<4>();
            pixels.iter().flat_map(|&inks| color::inks_to_rgb(inks)).collect()
        }
        // The decoder has inverted them; Pillow takes 16 bits as they are.
        (ColorType::Gray(16), Samples::Words(words)) if photometric == Some(WHITE_IS_ZERO) => {
            color::to_rgb(color::clipped(words.into_iter().map(|word| !word)), 1)
        }
        (ColorType::Gray(16), Samples::Words(words)) => color::to_rgb(color::clipped(words.into_iter()), 1),
        // Grey with alpha is called a multiband of two here.
        (
            ColorType::Gray(8) | ColorType::RGB(8) | ColorType::RGBA(8) | ColorType::Multiband { num_samples: 2, .. },
            Samples::Bytes(bytes),
        ) => color::to_rgb(bytes, usize::from(kind.num_samples())),
        (
            ColorType::RGB(16) | ColorType::RGBA(16) | ColorType::Multiband { num_samples: 2, .. },
            Samples::Words(words),
        ) => color::to_rgb(color::high_bytes(words.into_iter()), usize::from(kind.num_samples())),
        _ => return Err(source.unsupported("unusual TIFF")),
    };
    // The other pictures are not read, but a file that is cut within one is cut.
    while decoder.more_images() {
        match decoder.next_image() {
            Ok(()) => check_bytes(source, &mut decoder, corrupt)?,
            Err(TiffError::UnsupportedError(_)) => break,
            Err(e) => return Err(corrupt(e)),
        }
    }
    // A decoder that gave fewer samples than it announced is a damaged file's.
    if pixels.len() != CHANNELS * height * width {
        return Err(source.truncated("it has fewer pixels than it announces"));
    }
    let (pixels, height, width) = upright(pixels, height, width, orientation.unwrap_or(1));
    Image::new(pixels, height, width)
}

/// The first directory of a file of 32-bit offsets.
struct Directory<'a> {
    bytes: &'a [u8],
    little: bool,
    first_entry: usize,
    entries: usize,
}

impl<'a> Directory<'a> {
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let little = bytes.first() == Some(&b'I');
        let mut this = Self {
            bytes,
            little,
            first_entry: 0,
            entries: 0,
        };
        let start = this.long(4)? as usize;
        this.entries = usize::from(this.short(start)?);
        this.first_entry = start + 2;
        Some(this)
    }

    fn short(&self, at: usize) -> Option<u16> {
        match self.bytes.get(at..at.checked_add(2)?) {
            Some(&[a, b]) if self.little => Some(u16::from_le_bytes([a, b])),
            Some(&[a, b]) => Some(u16::from_be_bytes([a, b])),
            _ => None,
        }
    }

    fn long(&self, at: usize) -> Option<u32> {
        let (a, b) = (u32::from(self.short(at)?), u32::from(self.short(at.checked_add(2)?)?));
        Some(if self.little { b << 16 | a } else { a << 16 | b })
    }

    /// Where each entry starts: a tag and a type of 16 bits, a count and a value of 32.
    fn entries(&self) -> impl Iterator<Item = usize> {
        let first = self.first_entry;
        (0..self.entries).map(move |entry| first + 12 * entry)
    }

    /// Whether every value can lie within the file: the decoder makes room for a text as long as its entry says.
    fn fits(&self) -> bool {
        self.entries().all(|at| {
            let size = match self.short(at + 2) {
                Some(3 | 8) => 2,
                Some(4 | 9 | 11 | 13) => 4,
                Some(5 | 10 | 12) => 8,
                _ => 1,
            };
            let bytes = self.long(at + 4).map(|count| u64::from(count) * size);
            bytes.is_some_and(|bytes| bytes <= self.bytes.len() as u64)
        })
    }

    /// The file with a palette picture called a grey one, so that the decoder, which knows no palettes, gives the indices; and
    /// whether it was one.
    fn palette_as_grey(&self) -> (Cow<'a, [u8]>, bool) {
        const PHOTOMETRIC: u16 = 262;
        const BLACK_IS_ZERO: u8 = 1;
        const PALETTE: u16 = 3;
        let value = self
            .entries()
            .find(|&at| self.short(at) == Some(PHOTOMETRIC))
            .map(|at| at + 8);
        match value.filter(|&at| self.short(at) == Some(PALETTE)) {
            Some(at) => {
                let mut grey = self.bytes.to_vec();
                grey[at + usize::from(!self.little)] = BLACK_IS_ZERO;
                (Cow::Owned(grey), true)
            }
            None => (Cow::Borrowed(self.bytes), false),
        }
    }
}

enum Samples {
    Bytes(Vec<u8>),
    Words(Vec<u16>),
}

/// The strips or tiles must lie within the file; a decoder may fill up what is missing.
fn check_bytes(
    source: &Source<'_>,
    decoder: &mut Decoder<Cursor<&[u8]>>,
    corrupt: impl Fn(TiffError) -> Error + Copy,
) -> Result<()> {
    let lists = [
        (Tag::StripOffsets, Tag::StripByteCounts),
        (Tag::TileOffsets, Tag::TileByteCounts),
    ];
    for (offsets, counts) in lists {
        let offsets = decoder.find_tag_unsigned_vec::<u64>(offsets).map_err(corrupt)?;
        let counts = decoder.find_tag_unsigned_vec::<u64>(counts).map_err(corrupt)?;
        for (offset, count) in offsets.into_iter().flatten().zip(counts.into_iter().flatten()) {
            if offset.saturating_add(count) > source.bytes.len() as u64 {
                return Err(source.truncated("it ends within its pixels"));
            }
        }
    }
    Ok(())
}

/// One value of `bits` bits a byte, from rows that each start at a whole byte.
fn unpacked(packed: &[u8], width: usize, height: usize, bits: u8) -> Vec<u8> {
    if bits == 8 {
        return packed.to_vec();
    }
    let per_byte = usize::from(8 / bits);
    let mask = (1u8 << bits) - 1;
    let rows = packed.chunks_exact(width.div_ceil(per_byte)).take(height);
    rows.flat_map(|row| {
        (0..width).map(move |x| row[x / per_byte] >> (8 - usize::from(bits) * (x % per_byte + 1)) & mask)
    })
    .collect()
}
