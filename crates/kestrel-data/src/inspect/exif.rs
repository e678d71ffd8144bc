//! The EXIF orientation of a JPEG, a PNG or a WebP, to tell of it: there it is not applied. A TIFF is turned as its own says.

use crate::decode::Format;

/// The orientation, 1 to 8, if the file says one that is not applied.
pub(super) fn orientation(format: Format, bytes: &[u8]) -> Option<u16> {
    const ORIENTATION: u16 = 0x0112;
    let tiff = match format {
        Format::Jpeg => of_jpeg(bytes)?,
        Format::Png => of_png(bytes)?,
        Format::WebP => of_webp(bytes)?,
        _ => return None,
    };
    let little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| match tiff.get(at..at.checked_add(2)?) {
        Some(&[a, b]) => Some(if little {
            u16::from_le_bytes([a, b])
        } else {
            u16::from_be_bytes([a, b])
        }),
        _ => None,
    };
    let (a, b) = (usize::from(short(4)?), usize::from(short(6)?));
    let directory = if little { b << 16 | a } else { a << 16 | b };
    let entries = usize::from(short(directory)?);
    let entry = (0..entries)
        .map(|entry| directory + 2 + 12 * entry)
        .find(|&at| short(at) == Some(ORIENTATION))?;
    short(entry + 8).filter(|value| (1..=8).contains(value))
}

/// What follows `Exif\0\0` in the first such segment before the scan.
fn of_jpeg(jpeg: &[u8]) -> Option<&[u8]> {
    const APP1: u8 = 0xe1;
    const START_OF_SCAN: u8 = 0xda;
    let mut rest = jpeg.strip_prefix(&[0xff, 0xd8])?;
    loop {
        let (&[0xff, marker, high, low], _) = rest.split_first_chunk::<4>()? else {
            return None;
        };
        let end = 2 + usize::from(u16::from_be_bytes([high, low]));
        let segment = rest.get(4..end)?;
        match segment.strip_prefix(b"Exif\0\0") {
            Some(tiff) if marker == APP1 => return Some(tiff),
            _ if marker == START_OF_SCAN => return None,
            _ => rest = rest.get(end..)?,
        }
    }
}

/// The `eXIf` chunk.
fn of_png(png: &[u8]) -> Option<&[u8]> {
    let mut rest = png.get(8..)?;
    loop {
        let (&[l0, l1, l2, l3, ref kind @ ..], after) = rest.split_first_chunk::<8>()?;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if kind == b"eXIf" {
            return after.get(..length);
        }
        // The data, then four bytes of checksum.
        rest = after.get(length.checked_add(4)?..)?;
    }
}

/// The `EXIF` chunk, which some programs begin as a JPEG's.
fn of_webp(webp: &[u8]) -> Option<&[u8]> {
    let mut rest = webp.get(12..)?;
    loop {
        let (&[ref kind @ .., l0, l1, l2, l3], after) = rest.split_first_chunk::<8>()?;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if kind == b"EXIF" {
            let exif = after.get(..length)?;
            return Some(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif));
        }
        // Chunks begin at even places.
        rest = after.get(length.checked_next_multiple_of(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LITTLE: &[u8] = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";

    #[test]
    fn orientation_is_read_in_both_byte_orders_and_from_nothing_else() {
        let with = |tiff: &[u8]| {
            let mut jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xe1".to_vec();
            jpeg.extend((8 + tiff.len() as u16).to_be_bytes());
            jpeg.extend(b"Exif\0\0");
            jpeg.extend(tiff);
            jpeg.extend(b"\xff\xda\0\x02");
            jpeg
        };
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0";
        assert_eq!(orientation(Format::Jpeg, &with(LITTLE)), Some(6));
        assert_eq!(orientation(Format::Jpeg, &with(big)), Some(3));
        let whole = with(LITTLE);
        for length in 0..whole.len() - 12 {
            assert_eq!(orientation(Format::Jpeg, &whole[..length]), None, "{length}");
        }
        assert_eq!(orientation(Format::Jpeg, b"\xff\xd8\xff\xda\0\x02"), None);
    }
    #[test]
    fn it_is_read_in_a_png_and_a_webp_and_not_in_a_tiff_which_it_turns() {
        let chunk = |kind: &[u8], data: &[u8]| [&(data.len() as u32).to_be_bytes(), kind, data, b"sums"].concat();
        let png = [
            b"\x89PNG\r\n\x1a\n".to_vec(),
            chunk(b"IHDR", &[0; 13]),
            chunk(b"eXIf", LITTLE),
        ]
        .concat();
        assert_eq!(orientation(Format::Png, &png), Some(6));
        assert_eq!(orientation(Format::Png, &png[..png.len() - 14]), None);
        let chunk = |kind: &[u8], data: &[u8]| [kind, &(data.len() as u32).to_le_bytes(), data].concat();
        for prefix in [&b""[..], b"Exif\0\0"] {
            let exif = [prefix, LITTLE].concat();
            // One byte more than it says, so that the next begins at an even place.
            let webp = [
                b"RIFF\0\0\0\0WEBP".to_vec(),
                chunk(b"VP8L", &[0; 3]),
                vec![0],
                chunk(b"EXIF", &exif),
            ]
            .concat();
            assert_eq!(orientation(Format::WebP, &webp), Some(6));
            assert_eq!(orientation(Format::WebP, &webp[..webp.len() - 14]), None);
        }
        assert_eq!(orientation(Format::Tiff, LITTLE), None);
    }
}
