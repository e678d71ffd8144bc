//! The EXIF orientation of a JPEG, to tell of it; it is never applied.

/// The orientation, 1 to 8, if the file is a JPEG that says one.
pub(super) fn orientation(jpeg: &[u8]) -> Option<u16> {
    const ORIENTATION: u16 = 0x0112;
    let tiff = exif(jpeg)?;
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
fn exif(jpeg: &[u8]) -> Option<&[u8]> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0";
        assert_eq!(orientation(&with(little)), Some(6));
        assert_eq!(orientation(&with(big)), Some(3));
        let whole = with(little);
        for length in 0..whole.len() - 12 {
            assert_eq!(orientation(&whole[..length]), None, "{length}");
        }
        assert_eq!(orientation(b"\xff\xd8\xff\xda\0\x02"), None);
    }
}
