//! CIFAR-100's binary files, in a folder and in an archive.

use std::fs;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use kestrel_data::datasets::{self, cifar100};
use kestrel_data::{Dataset, Error};

/// `records` records: coarse label 1, fine label by the record's number, pixels by the plane.
fn records(records: usize) -> Vec<u8> {
    let planes = |value: u8| [vec![value; 1024], vec![value + 10; 1024], vec![value + 20; 1024]].concat();
    let images: Vec<Vec<u8>> = (0..7).map(planes).collect();
    let record = |record: usize| [&[1, (record % 100) as u8], images[record % 7].as_slice()].concat();
    (0..records).flat_map(record).collect()
}

fn check(path: &Path) {
    let splits = datasets::open(path).unwrap();
    assert_eq!((splits.train.len(), splits.test.len()), (50_000, 10_000));
    assert_eq!(
        (splits.train.classes().len(), splits.train.classes()[99].as_str()),
        (100, "worm")
    );
    // The fine label counts, not the coarse one.
    assert_eq!((splits.train.label(0), splits.train.label(42_042)), (0, 42));
    assert_eq!(&splits.test.image(8).unwrap().pixels()[..6], [1, 11, 21, 1, 11, 21]);
}

#[test]
fn folder_and_archive_open_alike() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join(cifar100::FOLDER);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("train.bin"), records(50_000)).unwrap();
    fs::write(folder.join("test.bin"), records(10_000)).unwrap();
    check(&folder);
    check(temp.path());
    // An archive is told by what is in it, whatever its name.
    let archive = temp.path().join("hundred.tgz");
    let mut tar = tar::Builder::new(GzEncoder::new(fs::File::create(&archive).unwrap(), Compression::fast()));
    tar.append_dir_all(cifar100::FOLDER, &folder).unwrap();
    tar.into_inner().unwrap().finish().unwrap();
    check(&archive);
    // As `tar czf` makes it of all that lies here.
    let mut tar = tar::Builder::new(GzEncoder::new(fs::File::create(&archive).unwrap(), Compression::fast()));
    tar.append_dir(".", temp.path()).unwrap();
    tar.append_dir_all(format!("./{}", cifar100::FOLDER), &folder).unwrap();
    tar.into_inner().unwrap().finish().unwrap();
    check(&archive);
    fs::write(folder.join("test.bin"), records(9_999)).unwrap();
    assert!(matches!(
        datasets::open(&folder),
        Err(Error::Truncated {
            expected: 30_740_000,
            ..
        })
    ));
}

#[test]
fn labels_and_sizes_are_checked() {
    let mut bytes = records(3);
    assert_eq!(cifar100::parse(&bytes, Path::new("a")).unwrap().1, [0, 1, 2]);
    assert!(matches!(
        cifar100::parse(&bytes[..9_000], Path::new("a")),
        Err(Error::Truncated { expected: 9_222, .. })
    ));
    bytes[3_074 + 1] = 100;
    assert!(matches!(
        cifar100::parse(&bytes, Path::new("a")),
        Err(Error::LabelOutOfRange {
            index: 1,
            label: 100,
            ..
        })
    ));
}

#[cfg(feature = "download")]
#[test]
fn official_archive_is_pinned() {
    assert_eq!(
        (cifar100::ARCHIVE.size, cifar100::ARCHIVE.sha256.len()),
        (Some(168_513_733), 64)
    );
    assert!(cifar100::ARCHIVE.urls.iter().all(|url| url.starts_with("https://")));
}
