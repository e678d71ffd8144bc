//! Every format and mode against Pillow's pixels, by the golden files of `scripts/golden/formats.py`; cuts and bombs of each.

use std::path::Path;
use std::time::Instant;

use kestrel_data::decode::{Format, MAX_PIXELS, decode};
use kestrel_data::pixels::Image;
use kestrel_data::{Error, Result};
use safetensors::SafeTensors;

use crate::manifest_dir::manifest_dir;

fn read(name: &str) -> Vec<u8> {
    std::fs::read(manifest_dir().join("tests/golden").join(name)).unwrap()
}

fn decoded(bytes: &[u8]) -> Result<Image<'static>> {
    decode(bytes, Path::new("a"))
}

/// A kind's name, file, size, and pixels as `[H, W, 3]`.
type Kind<'a> = (String, &'a [u8], [usize; 2], &'a [u8]);

fn kinds<'a>(file: &SafeTensors<'a>) -> Vec<Kind<'a>> {
    let mut kinds: Vec<_> = file
        .names()
        .into_iter()
        .filter_map(|name| name.strip_suffix(".file"))
        .map(|name| {
            let rgb = file.tensor(&format!("{name}.rgb")).unwrap();
            let size = [rgb.shape()[0], rgb.shape()[1]];
            let bytes = file.tensor(&format!("{name}.file")).unwrap().data();
            (name.to_owned(), bytes, size, rgb.data())
        })
        .collect();
    kinds.sort();
    kinds
}

/// The largest difference from Pillow's pixels, and the mean one.
fn differences((name, bytes, size, want): &Kind<'_>) -> (u8, f64) {
    let image = decoded(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!([image.height(), image.width()], *size, "{name}");
    let pixels = image.pixels();
    let each = pixels.iter().zip(want.iter()).map(|(a, b)| a.abs_diff(*b));
    let mean = each.clone().map(f64::from).sum::<f64>() / want.len() as f64;
    (each.max().unwrap(), mean)
}

#[test]
fn every_lossless_kind_equals_pillow() {
    let bytes = read("formats.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let kinds = kinds(&file);
    assert_eq!(kinds.len(), 58);
    let wrong: Vec<_> = kinds
        .iter()
        .filter(|kind| differences(kind).0 > 0)
        .map(|kind| (&kind.0, differences(kind)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn every_lossy_kind_is_near_pillow() {
    let bytes = read("lossy_formats.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let kinds = kinds(&file);
    assert_eq!(kinds.len(), 16);
    let is_refused = |name: &str| ["jpeg.scans_420", "jpeg.scans_440"].contains(&name);
    let (refused, kinds): (Vec<_>, Vec<_>) = kinds.into_iter().partition(|kind| is_refused(&kind.0));
    assert_eq!(refused.len(), 2);
    for (name, bytes, ..) in refused {
        let error = decoded(bytes).unwrap_err();
        assert!(matches!(error, Error::UnsupportedPixels { .. }), "{name}: {error}");
    }
    let wrong: Vec<_> = kinds
        .iter()
        .map(|kind| (&kind.0, differences(kind)))
        .filter(|(name, (worst, mean))| *worst > if name.starts_with("webp") { 0 } else { 3 } || *mean >= 0.5)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn every_kind_is_an_error_when_cut_anywhere() {
    for golden in ["formats.safetensors", "lossy_formats.safetensors"] {
        let bytes = read(golden);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for (name, whole, ..) in kinds(&file) {
            // Pillow pads the last page's end.
            let end = whole.len() - if name == "tiff.pages" { 7 } else { 0 };
            let passed: Vec<usize> = (0..end).filter(|&length| decoded(&whole[..length]).is_ok()).collect();
            assert!(passed.is_empty(), "{name}: {passed:?} of {} bytes passed", whole.len());
        }
    }
}

#[test]
fn damage_never_panics_and_is_named() {
    let bytes = read("formats.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, whole, ..) in kinds(&file) {
        for position in 0..whole.len().min(200) {
            for change in [0xff, 0x80, 0x01] {
                let mut damaged = whole.to_vec();
                damaged[position] ^= change;
                if let Err(error) = decoded(&damaged) {
                    assert!(!error.to_string().contains("panicked"), "{name} at {position}: {error}");
                }
            }
        }
    }
}

/// A file of under 100 bytes whose header announces 65,535 x 65,535 pixels, or the most that the format can say.
fn bomb(format: Format) -> Vec<u8> {
    let mut bomb = match format {
        Format::Jpeg => {
            b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\x01\x01\x11\0\xff\xda\0\x08\x01\x01\0\0\x3f\0\xff\xd9".to_vec()
        }
        Format::Png => [
            &b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xff\xff\0\0\xff\xff\x08\0\0\0\0"[..],
            &b"\0\0\0\0\0\0\0\0IEND\0\0\0\0"[..],
        ]
        .concat(),
        // VP8X with a canvas of 65,535 x 65,535, and an empty picture.
        Format::WebP => b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xfe\xff\0\xfe\xff\0VP8L\0\0\0\0".to_vec(),
        Format::Bmp => {
            b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\xff\xff\0\0\xff\xff\0\0\x01\0\x18\0\0\0\0\0\0\0\0\0".to_vec()
        }
        Format::Gif => b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0;".to_vec(),
        _ => [
            &b"II*\0\x08\0\0\0\x05\0"[..],
            &b"\0\x01\x04\0\x01\0\0\0\xff\xff\0\0"[..],
            &b"\x01\x01\x04\0\x01\0\0\0\xff\xff\0\0"[..],
            &b"\x06\x01\x03\0\x01\0\0\0\x01\0\0\0"[..],
            &b"\x11\x01\x04\0\x01\0\0\0\x08\0\0\0"[..],
            &b"\x17\x01\x04\0\x01\0\0\0\x08\0\0\0"[..],
            &b"\0\0\0\0"[..],
        ]
        .concat(),
    };
    bomb.resize(bomb.len().max(60), 0);
    assert!(bomb.len() < 100);
    bomb
}

const FORMATS: [Format; 6] = [
    Format::Jpeg,
    Format::Png,
    Format::WebP,
    Format::Bmp,
    Format::Gif,
    Format::Tiff,
];

/// The most bytes of addresses that the process has had at once, where the system tells: memory that is asked for counts, whether it
/// is written to or not.
fn peak() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<usize>().ok()? * 1024)
}

#[test]
fn bombs_ask_for_no_memory() {
    const ALONE: &str = "KESTREL_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        // In a process of its own: other tests ask for memory too.
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        alone.args(["--exact", "formats::bombs_ask_for_no_memory", "--test-threads=1"]);
        let output = alone.env(ALONE, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    // What was given back earlier would hide what is asked for: it is taken again.
    let (start, mut ballast) = (peak(), Vec::new());
    while peak() == start && ballast.len() < 64 {
        ballast.push(std::hint::black_box(vec![0u8; 8 << 20]));
    }
    for format in FORMATS {
        let (bomb, before) = (bomb(format), peak());
        assert!(matches!(decoded(&bomb), Err(Error::TooLarge { .. })), "{format:?}");
        let grown = peak().zip(before).map_or(0, |(after, before)| after - before);
        assert!(grown < 16 << 20, "{format:?}: {grown} bytes");
    }
    // That it would be seen.
    let before = peak();
    drop(std::hint::black_box(vec![0u8; 16 << 20]));
    assert!(
        peak()
            .zip(before)
            .is_none_or(|(after, before)| after - before >= 15 << 20)
    );
}

#[test]
fn bombs_of_every_format_are_refused_by_their_header() {
    for format in FORMATS {
        let bomb = bomb(format);
        assert_eq!(Format::sniff(&bomb), Some(format));
        let started = Instant::now();
        let error = decoded(&bomb).unwrap_err();
        assert!(started.elapsed().as_millis() < 10, "{format:?}");
        let Error::TooLarge {
            limit: MAX_PIXELS, got, ..
        } = error
        else {
            panic!("{format:?}: {error}")
        };
        assert_eq!(got, 4_294_836_225, "{format:?}");
    }
}
