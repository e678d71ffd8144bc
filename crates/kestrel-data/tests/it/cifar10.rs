//! CIFAR-10's binary layout: folder, archive, cache; and that candle-datasets reads the same.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use kestrel_data::datasets::{self, cifar10};
use kestrel_data::{Dataset, Error, InMemory, Splits};

const NAMES: [&str; 6] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
    "test_batch.bin",
];

/// The bytes of file `file`: labels in turn, pixels that tell file, record and place.
fn bytes(file: usize) -> Vec<u8> {
    let mut bytes = vec![0; 30_730_000];
    for (record, chunk) in bytes.chunks_exact_mut(3073).enumerate() {
        chunk[0] = ((record + file) % 10) as u8;
        for (i, value) in chunk[1..].iter_mut().enumerate() {
            *value = (i * 7 + record * 13 + file * 101) as u8;
        }
    }
    bytes
}

/// A synthetic folder, made once; some tests add to copies of it by links.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join(cifar10::FOLDER);
    fs::create_dir(&folder).unwrap();
    for (file, name) in NAMES.iter().enumerate() {
        fs::write(folder.join(name), bytes(file)).unwrap();
    }
    temp
});

fn folder() -> PathBuf {
    FOLDER.path().join(cifar10::FOLDER)
}

/// A folder of hard links to the synthetic files, without `left_out`.
fn linked(temp: &Path, left_out: &str) -> PathBuf {
    let to = temp.join("batches");
    fs::create_dir(&to).unwrap();
    for name in NAMES.iter().filter(|&&name| name != left_out) {
        fs::hard_link(folder().join(name), to.join(name)).unwrap();
    }
    to
}

fn check(splits: &Splits<InMemory>) {
    assert_eq!((splits.train.len(), splits.test.len()), (50_000, 10_000));
    assert_eq!(splits.train.classes(), cifar10::CLASSES);
    let record = 23;
    let image = splits.train.image(20_000 + record).unwrap();
    let pixels = image.pixels();
    for (place, pixel) in pixels.chunks_exact(3).enumerate() {
        for (channel, &value) in pixel.iter().enumerate() {
            assert_eq!(value, ((channel * 1024 + place) * 7 + record * 13 + 2 * 101) as u8);
        }
    }
    assert_eq!(splits.train.label(20_000 + record), 5);
    assert_eq!(splits.test.label(0), 5);
}

#[test]
fn folder_and_its_parent_open() {
    let splits = datasets::open(&folder()).unwrap();
    check(&splits);
    let parent = datasets::open(FOLDER.path()).unwrap();
    assert_eq!(parent.train.fingerprint().unwrap(), splits.train.fingerprint().unwrap());
    assert_ne!(splits.train.fingerprint().unwrap(), splits.test.fingerprint().unwrap());
    assert!(splits.test.describe().contains("CIFAR-10 test"));
}

#[cfg(feature = "candle-datasets")]
#[test]
fn candle_datasets_reads_the_same() {
    let ours = cifar10::open(&folder()).unwrap();
    let theirs = candle_datasets::vision::cifar::load_dir(folder()).unwrap();
    let names = cifar10::CLASSES.map(String::from);
    let converted = datasets::candle::from_candle(&theirs, &names, "CIFAR-10").unwrap();
    for (ours, theirs) in [(&ours.train, &converted.train), (&ours.test, &converted.test)] {
        assert!(ours.pixels() == theirs.pixels() && ours.labels() == theirs.labels());
    }
}

#[test]
fn archive_opens() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join(cifar10::ARCHIVE_NAME);
    let mut tar = tar::Builder::new(GzEncoder::new(File::create(&path).unwrap(), Compression::fast()));
    tar.append_dir_all(cifar10::FOLDER, folder()).unwrap();
    tar.into_inner().unwrap().finish().unwrap();
    check(&datasets::open(&path).unwrap());
    check(&datasets::open(temp.path()).unwrap());
    let cut = fs::read(&path).unwrap();
    fs::write(&path, &cut[..cut.len() / 2]).unwrap();
    assert!(datasets::open(&path).is_err());
}

#[test]
fn wrong_sizes_and_labels_are_named() {
    let temp = tempfile::tempdir().unwrap();
    let folder = linked(temp.path(), "data_batch_3.bin");
    let third = folder.join("data_batch_3.bin");
    assert!(matches!(cifar10::open(&folder), Err(Error::Io { path, .. }) if path == third));
    let mut whole = bytes(2);
    fs::write(&third, &whole[..whole.len() - 1]).unwrap();
    let error = cifar10::open(&folder).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Truncated {
                expected: 30_730_000,
                got: 30_729_999,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("data_batch_3.bin is truncated: expected 30730000 bytes, got 30729999")
    );
    whole.push(0);
    fs::write(&third, &whole).unwrap();
    assert!(matches!(
        cifar10::open(&folder),
        Err(Error::TrailingBytes { got: 30_730_001, .. })
    ));
    for label in [10, 255] {
        whole.truncate(30_730_000);
        whole[3073 * 77] = label;
        fs::write(&third, &whole).unwrap();
        match cifar10::open(&folder).unwrap_err() {
            Error::LabelOutOfRange {
                path,
                index: 77,
                label: got,
                num_classes: 10,
            } => {
                assert_eq!((path, got), (third.clone(), u64::from(label)));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn folder_without_a_manifest_is_no_cache() {
    assert!(matches!(
        cifar10::open_cached(FOLDER.path()),
        Err(Error::Unverified { .. })
    ));
    let temp = tempfile::tempdir().unwrap();
    assert!(cifar10::open_cached(temp.path()).unwrap().is_none());
    assert!(matches!(datasets::open(temp.path()), Err(Error::UnknownLayout { .. })));
    assert!(matches!(
        datasets::open(&temp.path().join("missing")),
        Err(Error::Io { .. })
    ));
}
