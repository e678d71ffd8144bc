//! What the fuzzer tries, a function a target. The tests of `kestrel-data` run the same functions over the kept inputs.
//!
//! A target panics where a promise does not hold: a panic of the code, pixels that do not fit the size, memory that the input
//! does not explain. That nothing hangs or takes too much memory is for libFuzzer's own limits to notice.

use std::io::Write;
use std::path::Path;

use kestrel_data::archive::{self, Expected};
use kestrel_data::datasets::{Dataset, ImageFiles, ImageTar, cifar10, cifar100, idx};
use kestrel_data::decode;

/// An image file of any format, told by its first bytes.
pub(crate) fn decode_image(data: &[u8]) {
    match decode::decode(data, Path::new("input")) {
        Ok(image) => {
            let (height, width) = (image.height(), image.width());
            assert!(height > 0 && width > 0 && (height * width) as u64 <= decode::MAX_PIXELS);
            assert_eq!(image.pixels().len(), 3 * height * width);
            assert!(decode::Format::sniff(data).is_some());
        }
        // `decode` catches a decoder's panic, so that a run survives it; here it is what is looked for.
        Err(error) => assert!(
            error.is_bad_image() && !error.to_string().contains("panicked"),
            "{error}"
        ),
    }
}

/// An IDX file, gzipped or not.
pub(crate) fn idx(data: &[u8]) {
    if let Ok(array) = idx::read(data, Path::new("input")) {
        assert_eq!(array.data.len(), array.dims.iter().product::<usize>());
        assert!(array.data.len() as u64 <= idx::MAX_BYTES);
        let classes = (0..10).map(|class| class.to_string()).collect();
        let labels = idx::Idx {
            dims: vec![array.dims[0]],
            data: vec![9; array.dims[0].min(1 << 20)],
        };
        if labels.data.len() == array.dims[0]
            && let Ok(dataset) = idx::into_dataset(&array, &labels, classes, Path::new("input"))
        {
            assert_eq!(dataset.len(), array.dims[0]);
        }
    }
}

/// Records of CIFAR-10 and of CIFAR-100.
pub(crate) fn cifar_binary(data: &[u8]) {
    for (parsed, record, classes) in [
        (cifar10::parse(data, Path::new("input")), 3073, 10),
        (cifar100::parse(data, Path::new("input")), 3074, 100),
    ] {
        if let Ok((pixels, labels)) = parsed {
            assert_eq!(labels.len() * record, data.len());
            assert_eq!(pixels.len(), labels.len() * 3072);
            assert!(labels.iter().all(|&label| label < classes));
        }
    }
}

/// A tar, read as the `.tar.gz` of a download and as a `.tar` of images.
pub(crate) fn archive(data: &[u8]) {
    let expected = [Expected::exactly("d/a.bin", 10), Expected::at_most("d/b.txt", 2000)];
    // Stored, not packed, so that the fuzzer's bytes reach the tar reader; gzip's own checks are met by the raw bytes.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    packed.write_all(data).unwrap();
    let packed = packed.finish().unwrap();
    for bytes in [packed.as_slice(), data] {
        if let Ok(files) = archive::read_from(bytes, Path::new("input"), &expected) {
            assert!(files.keys().all(|name| name == "d/a.bin" || name == "d/b.txt"));
            assert_eq!(files["d/a.bin"].len(), 10);
        }
    }
    let mut file = tempfile::Builder::new().suffix(".tar").tempfile().unwrap();
    file.write_all(data).unwrap();
    if let Ok(opened) = ImageTar::open(file.path()) {
        let _ = opened.map(|split| {
            for index in 0..split.len() {
                assert!((split.label(index) as usize) < split.classes().len());
                let bytes = split.read(index).unwrap();
                assert!(bytes.len() <= data.len());
            }
            Ok(split)
        });
    }
}
