//! Round trips, and one test a fault.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

fn encode(magic: u32, dims: &[u32], data: &[u8]) -> Vec<u8> {
    let words = std::iter::once(magic).chain(dims.iter().copied());
    words.flat_map(u32::to_be_bytes).chain(data.iter().copied()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn parse_bytes(bytes: &[u8]) -> Result<Idx> {
    read(bytes, Path::new("a.idx"))
}

proptest! {
    #[test]
    fn round_trip(n in 0u32..5, h in 0u32..5, w in 0u32..5, zipped: bool) {
        let data: Vec<u8> = (0..n * h * w).map(|i| i as u8).collect();
        let bytes = encode(0x0803, &[n, h, w], &data);
        let bytes = if zipped { gzip(&bytes) } else { bytes };
        let idx = parse_bytes(&bytes).unwrap();
        prop_assert_eq!(idx, Idx { dims: vec![n as usize, h as usize, w as usize], data });
    }

    #[test]
    fn any_bytes_give_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse_bytes(&bytes);
    }

    #[test]
    fn every_cut_is_an_error(cut in 0usize..26, zipped: bool) {
        let bytes = encode(0x0803, &[2, 2, 3], &[7; 12]);
        let bytes = if zipped { gzip(&bytes) } else { bytes };
        prop_assert!(parse_bytes(&bytes[..cut.min(bytes.len() - 1)]).is_err());
    }
}

#[test]
fn faults_are_named() {
    let labels = encode(0x0801, &[3], &[0, 1, 2]);
    assert_eq!(parse_bytes(&labels).unwrap().dims, [3]);
    assert!(matches!(
        parse_bytes(&labels[..10]),
        Err(Error::Truncated {
            expected: 11,
            got: 10,
            ..
        })
    ));
    assert!(matches!(
        parse_bytes(&labels[..6]),
        Err(Error::Truncated {
            expected: 8,
            got: 6,
            ..
        })
    ));
    assert!(matches!(
        parse_bytes(&[]),
        Err(Error::Truncated {
            expected: 4,
            got: 0,
            ..
        })
    ));
    let longer = [labels.as_slice(), &[9]].concat();
    assert!(matches!(
        parse_bytes(&longer),
        Err(Error::TrailingBytes {
            expected: 11,
            got: 12,
            ..
        })
    ));
    assert!(matches!(parse_bytes(&gzip(&longer)), Err(Error::TrailingBytes { .. })));
    let floats = encode(0x0D03, &[1, 1, 1], &[0; 4]);
    assert!(matches!(parse_bytes(&floats), Err(Error::BadMagic { got: 0x0D03, .. })));
    // Caps hold before anything is allocated, also where the product overflows.
    for dims in [[u32::MAX; 3], [1 << 31, 2, 1]] {
        assert!(matches!(
            parse_bytes(&encode(0x0803, &dims, &[])),
            Err(Error::TooLarge { .. })
        ));
    }
}

#[test]
fn data_set_pads_and_checks() {
    let images = |n: usize, side: usize| Idx {
        dims: vec![n, side, side],
        data: vec![200; n * side * side],
    };
    let labels = |data: &[u8]| Idx {
        dims: vec![data.len()],
        data: data.to_vec(),
    };
    let classes = || vec!["a".to_owned(), "b".to_owned()];
    let path = Path::new("x");
    let made = into_dataset(&images(2, 28), &labels(&[0, 1]), classes(), path).unwrap();
    assert_eq!((made.height(), made.width()), (32, 32));
    let row = |y: usize| &made.pixels()[y * 96..(y + 1) * 96];
    assert!(row(1).iter().all(|&v| v == 0) && row(30).iter().all(|&v| v == 0));
    let (black, grey) = (row(2)[..6].to_vec(), row(29)[6..90].to_vec());
    assert!(black.iter().all(|&v| v == 0) && grey.iter().all(|&v| v == 200));
    assert_eq!(
        into_dataset(&images(1, 30), &labels(&[0]), classes(), path)
            .unwrap()
            .height(),
        30
    );
    let make = |images: Idx, labels: Idx| into_dataset(&images, &labels, classes(), path);
    assert!(matches!(
        make(images(2, 28), labels(&[0])),
        Err(Error::CountMismatch {
            expected: 2,
            got: 1,
            ..
        })
    ));
    assert!(matches!(
        make(images(1, 28), labels(&[2])),
        Err(Error::LabelOutOfRange { label: 2, .. })
    ));
    assert!(matches!(
        make(images(0, 28), labels(&[])),
        Err(Error::EmptySplit { .. })
    ));
    // Found by fuzzing, in a build that checks for overflow: no images of a size whose product does not fit.
    let huge = Idx {
        dims: vec![0, 0xffff_ff03, 0xb500_c500],
        data: Vec::new(),
    };
    assert!(matches!(make(huge, labels(&[])), Err(Error::EmptySplit { .. })));
    assert!(matches!(make(labels(&[0]), images(1, 28)), Err(Error::BadMagic { .. })));
}
