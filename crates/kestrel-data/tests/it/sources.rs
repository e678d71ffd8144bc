//! The carried sample, folders of IDX files, and candle-datasets.

use std::fs;
use std::path::{Path, PathBuf};

use kestrel_data::datasets::{self, idx, sample};
use kestrel_data::{Dataset, Error};

fn sample_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/fashion-mnist-sample")
}

#[test]
fn sample_is_balanced_and_padded() {
    let splits = sample::load().unwrap();
    for (split, per_class) in [(&splits.train, 600), (&splits.test, 100)] {
        assert_eq!((split.height(), split.width(), split.classes().len()), (32, 32, 10));
        for label in 0..10 {
            assert_eq!(split.labels().iter().filter(|&&l| l == label).count(), per_class);
        }
        let image = split.image(0).unwrap();
        let pixels = image.pixels();
        assert!(pixels[..32 * 3 * 2].iter().all(|&value| value == 0));
        assert!(pixels.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]));
        assert!(pixels.iter().any(|&value| value > 200));
    }
    // The first training image of the original files is an ankle boot.
    assert_eq!(splits.train.classes()[splits.train.label(0) as usize], "Ankle boot");
}

#[test]
fn idx_folder_opens_gzipped() {
    let splits = datasets::open(&sample_folder()).unwrap();
    let carried = sample::load().unwrap();
    assert_eq!(
        splits.train.fingerprint().unwrap(),
        carried.train.fingerprint().unwrap()
    );
    assert_eq!(splits.test.fingerprint().unwrap(), carried.test.fingerprint().unwrap());
}

#[test]
fn missing_label_file_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let name = "train-images-idx3-ubyte.gz";
    fs::copy(sample_folder().join(name), temp.path().join(name)).unwrap();
    match datasets::open(temp.path()).unwrap_err() {
        Error::Io { path, .. } => assert_eq!(path, temp.path().join("train-labels-idx1-ubyte")),
        other => panic!("{other}"),
    }
}

/// Writes the sample as plain IDX files.
fn write_plain(folder: &Path) {
    for (name, magic) in [
        ("train-images-idx3-ubyte", 0x803u32),
        ("train-labels-idx1-ubyte", 0x801),
        ("t10k-images-idx3-ubyte", 0x803),
        ("t10k-labels-idx1-ubyte", 0x801),
    ] {
        let read = idx::read_file(&sample_folder().join(format!("{name}.gz"))).unwrap();
        let words = std::iter::once(magic).chain(read.dims.iter().map(|&dim| dim as u32));
        let header: Vec<u8> = words.flat_map(u32::to_be_bytes).collect();
        fs::write(folder.join(name), [header, read.data].concat()).unwrap();
    }
}

#[test]
fn idx_folder_opens_plain_with_digits_as_classes() {
    let temp = tempfile::tempdir().unwrap();
    write_plain(temp.path());
    let splits = datasets::open(temp.path()).unwrap();
    assert!(splits.train.pixels() == sample::load().unwrap().train.pixels());
    assert_eq!(splits.train.classes()[9], "9");
}

#[cfg(feature = "candle-datasets")]
#[test]
fn candle_datasets_reads_the_same_pixels() {
    let temp = tempfile::tempdir().unwrap();
    write_plain(temp.path());
    let (ours, theirs) = (
        datasets::open(temp.path()).unwrap(),
        datasets::candle::mnist(temp.path()).unwrap(),
    );
    for (ours, theirs) in [(&ours.train, &theirs.train), (&ours.test, &theirs.test)] {
        assert_eq!(ours.fingerprint().unwrap(), theirs.fingerprint().unwrap());
    }
    assert!(matches!(
        datasets::candle::mnist(&temp.path().join("missing")),
        Err(Error::Candle { .. })
    ));
}

#[cfg(feature = "candle-datasets")]
#[test]
fn candle_images_become_bytes_exactly_or_not_at_all() {
    use candle_core::{Device, Tensor};
    use candle_datasets::vision::Dataset as CandleDataset;
    use kestrel_data::datasets::candle::from_candle;

    let make = |values: Vec<f32>, shape: &[usize], labels: &[u8]| {
        let images = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        let labels = Tensor::new(labels, &Device::Cpu).unwrap();
        let (train_images, train_labels) = (images.clone(), labels.clone());
        let dataset = CandleDataset {
            train_images,
            train_labels,
            test_images: images,
            test_labels: labels,
            labels: 2,
        };
        from_candle(&dataset, &["a".into(), "b".into()], "made")
    };
    let all: Vec<f32> = (0..=255u8).map(|byte| f32::from(byte) / 255.0).collect();
    let splits = make(all.clone(), &[1, 1, 16, 16], &[1]).unwrap();
    assert!(splits.train.pixels().chunks_exact(3).map(|pixel| pixel[0]).eq(0..=255));
    let inverse: Vec<f32> = (0..=255u8).map(|byte| f32::from(byte) * (1.0 / 255.0)).collect();
    assert_eq!(
        make(inverse, &[1, 1, 16, 16], &[1]).unwrap().train.pixels(),
        splits.train.pixels()
    );
    let planes = make(
        (0..12u8).map(|byte| f32::from(byte) / 255.0).collect(),
        &[1, 3, 2, 2],
        &[0],
    )
    .unwrap();
    assert_eq!(planes.test.pixels(), [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
    for bad in [0.5, -1.0 / 255.0, 1.1, f32::NAN] {
        let values = [all[..255].to_vec(), vec![bad]].concat();
        assert!(
            matches!(
                make(values, &[2, 1, 8, 16], &[0, 1]),
                Err(Error::InexactPixel { index: 1, .. })
            ),
            "{bad}"
        );
    }
    assert!(matches!(
        make(all.clone(), &[1, 256], &[0]),
        Err(Error::InvalidParameter { .. })
    ));
    assert!(matches!(
        make(all, &[1, 1, 16, 16], &[2]),
        Err(Error::LabelOutOfRange { label: 2, .. })
    ));
}
