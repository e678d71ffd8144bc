//! Decoding: what is taken, and that nothing damaged is.

use std::io::Cursor;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use kestrel_data::Error;
use kestrel_data::decode::{Format, MAX_PIXELS, decode, decode_within};

/// Noise over a gradient, so that every block has many coefficients.
fn pixels(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 25) as u8 + (i / 23 % 100) as u8)
        .collect()
}

fn jpeg(side: usize, quality: u8, color: ExtendedColorType) -> Vec<u8> {
    let channels = usize::from(color.channel_count());
    let mut file = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut file, quality);
    encoder
        .write_image(&pixels(side * side * channels), side as u32, side as u32, color)
        .unwrap();
    file
}

fn png(side: u32, color: ExtendedColorType, bytes: &[u8]) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image::codecs::png::PngEncoder::new(&mut file)
        .write_image(bytes, side, side, color)
        .unwrap();
    file.into_inner()
}

fn decoded(bytes: &[u8]) -> kestrel_data::Result<Vec<u8>> {
    decode(bytes, Path::new("a")).map(|image| image.pixels().into_owned())
}

#[test]
fn whole_images_decode() {
    let rgb = pixels(32 * 32 * 3);
    assert_eq!(decoded(&png(32, ExtendedColorType::Rgb8, &rgb)).unwrap(), rgb);
    for side in [1, 8, 17, 32, 63] {
        let colour = decoded(&jpeg(side, 95, ExtendedColorType::Rgb8)).unwrap();
        assert_eq!(colour.len(), side * side * 3);
        let grey = decoded(&jpeg(side, 95, ExtendedColorType::L8)).unwrap();
        assert!(grey.as_chunks::<3>().0.iter().all(|p| p[0] == p[1] && p[1] == p[2]));
    }
}

#[test]
fn jpeg_keeps_its_pixels() {
    let gradient: Vec<u8> = (0..32 * 32)
        .flat_map(|i| [(i % 32 * 8) as u8, (i / 32 * 8) as u8, 128])
        .collect();
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, 100)
        .write_image(&gradient, 32, 32, ExtendedColorType::Rgb8)
        .unwrap();
    let worst = decoded(&file)
        .unwrap()
        .iter()
        .zip(&gradient)
        .map(|(a, b)| a.abs_diff(*b))
        .max()
        .unwrap();
    assert!(worst <= 6, "{worst}");
}

#[test]
fn truncated_jpeg_is_an_error_at_every_length() {
    for (side, color) in [
        (32, ExtendedColorType::Rgb8),
        (32, ExtendedColorType::L8),
        (9, ExtendedColorType::Rgb8),
    ] {
        let whole = jpeg(side, 90, color);
        assert!(decoded(&whole).is_ok());
        for length in 0..whole.len() {
            assert!(
                decoded(&whole[..length]).is_err(),
                "{length} of {} bytes passed",
                whole.len()
            );
        }
        // Bytes after the end are none of the image's.
        assert!(decoded(&[whole.as_slice(), b"trailer"].concat()).is_ok());
    }
}

#[test]
fn image_crate_still_takes_truncated_jpegs() {
    // Why this crate has its own check. When this fails, `image` has mended it.
    let whole = jpeg(64, 90, ExtendedColorType::Rgb8);
    assert!(image::load_from_memory(&whole[..whole.len() * 3 / 4]).is_ok());
}

#[test]
fn truncated_png_is_an_error_at_every_length() {
    let whole = png(9, ExtendedColorType::Rgba8, &pixels(9 * 9 * 4));
    assert!(decoded(&whole).is_ok());
    for length in 0..whole.len() {
        assert!(
            decoded(&whole[..length]).is_err(),
            "{length} of {} bytes passed",
            whole.len()
        );
    }
}

#[test]
fn damaged_png_is_an_error_at_every_byte() {
    let whole = png(9, ExtendedColorType::Rgb8, &pixels(9 * 9 * 3));
    for position in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[position] ^= 0x10;
        // The IEND chunk's checksum is the one that no decoder reads.
        if position < whole.len() - 12 {
            assert!(decoded(&damaged).is_err(), "byte {position} of {} passed", whole.len());
        }
    }
}

#[test]
fn formats_are_told_by_content() {
    let sniffed = [
        (&b""[..], "empty"),
        (b"BMW is no bitmap file", "none that is known"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"hello, world", "none that is known"),
    ];
    for (bytes, found) in sniffed {
        let error = decoded(bytes).unwrap_err();
        assert!(
            matches!(error, Error::UnsupportedFormat { .. }) && error.to_string().contains(found),
            "{error}"
        );
    }
    assert_eq!(Format::sniff(&jpeg(8, 50, ExtendedColorType::L8)), Some(Format::Jpeg));
}

#[test]
fn sixteen_bit_pixels_keep_their_high_byte_and_grey_is_clipped() {
    let words: Vec<u16> = (0..27).map(|i| i * 2_411).collect();
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let high: Vec<u8> = words.iter().map(|word| (word >> 8) as u8).collect();
    assert_eq!(decoded(&png(3, ExtendedColorType::Rgb16, &bytes)).unwrap(), high);
    let grey = decoded(&png(3, ExtendedColorType::L16, &bytes[..18])).unwrap();
    assert_eq!((&grey[..3], &grey[3..6]), (&[0; 3][..], &[255; 3][..]));
}

#[test]
fn bombs_are_refused_by_their_header() {
    let mut bomb = png(1, ExtendedColorType::L8, &[0]);
    bomb[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    let mut jpeg_bomb = jpeg(8, 50, ExtendedColorType::L8);
    let frame = jpeg_bomb.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    jpeg_bomb[frame + 5..frame + 9].fill(0xff);
    for bytes in [bomb, jpeg_bomb] {
        let started = std::time::Instant::now();
        let error = decoded(&bytes).unwrap_err();
        assert!(
            matches!(
                error,
                Error::TooLarge {
                    limit: MAX_PIXELS,
                    got: 4_294_836_225,
                    ..
                }
            ),
            "{error}"
        );
        assert!(started.elapsed().as_millis() < 10);
    }
}

proptest::proptest! {
    #[test]
    fn changed_bytes_never_panic(position in 0usize..600, value: u8) {
        let mut bytes = jpeg(16, 80, ExtendedColorType::Rgb8);
        let position = position % bytes.len();
        bytes[position] = value;
        let _ = decoded(&bytes);
    }
}

#[test]
fn a_lower_cap_holds_for_every_format() {
    let rgb = image::RgbImage::from_raw(20, 20, pixels(20 * 20 * 3)).unwrap();
    let write = |format| {
        let mut file = Cursor::new(Vec::new());
        rgb.write_to(&mut file, format).unwrap();
        file.into_inner()
    };
    use image::ImageFormat::{Bmp, Jpeg, Png, WebP};
    for bytes in [Bmp, Jpeg, Png, WebP].map(write) {
        let within = |cap| decode_within(&bytes, Path::new("a"), cap, &mut |_, _| None);
        assert_eq!(
            within(400).unwrap().pixels(),
            decode(&bytes, Path::new("a")).unwrap().pixels()
        );
        let error = within(399).unwrap_err();
        assert!(
            matches!(
                error,
                Error::TooLarge {
                    limit: 399,
                    got: 400,
                    ..
                }
            ),
            "{error}"
        );
    }
}
