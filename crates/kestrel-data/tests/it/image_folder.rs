//! Image folders: torchvision's order, and everything odd counted or refused.

use std::fs;
use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use kestrel_data::datasets::{self, ImageFiles, ImageFolder, SkipReason, cifar10};
use kestrel_data::{BadSamplePolicy, Dataset, Error, InMemory, Splits};

use crate::skipped::count_skipped;

/// Writes a PNG of one colour, making its folders.
fn png(path: &Path, side: u32, value: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = Vec::new();
    let pixels = vec![value; (side * side * 3) as usize];
    PngEncoder::new(&mut file)
        .write_image(&pixels, side, side, ExtendedColorType::Rgb8)
        .unwrap();
    fs::write(path, file).unwrap();
}

fn names(folder: &ImageFolder) -> Vec<String> {
    let below = |index| {
        folder
            .path(index)
            .strip_prefix(folder.root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    (0..folder.len()).map(below).collect()
}

#[test]
fn order_is_torchvisions_whatever_the_order_of_creation() {
    let files = [
        "B/z.png",
        "B/a.PNG",
        "B/10.png",
        "B/2.png",
        "a/x.png",
        "a/d/y.png",
        "a/d-e/y.png",
        "a/d/f/y.png",
        "Ä/1.png",
    ];
    let make = |reversed: bool| {
        let temp = tempfile::tempdir().unwrap();
        let mut order: Vec<usize> = (0..files.len()).collect();
        if reversed {
            order.reverse();
        }
        for index in order {
            png(&temp.path().join(files[index]), 2, index as u8);
        }
        (ImageFolder::open(temp.path()).unwrap(), temp)
    };
    let ((one, _temp), (two, _other)) = (make(false), make(true));
    assert_eq!(one.classes(), ["B", "a", "Ä"]);
    // Folders in the byte order of their whole paths: `a/d` is a prefix of the others, and '-' sorts before '/'.
    let want = [
        "B/10.png",
        "B/2.png",
        "B/a.PNG",
        "B/z.png",
        "a/x.png",
        "a/d/y.png",
        "a/d-e/y.png",
        "a/d/f/y.png",
        "Ä/1.png",
    ];
    assert_eq!(names(&one), want);
    assert_eq!(one.fingerprint().unwrap(), two.fingerprint().unwrap());
    assert_eq!(
        (0..one.len()).map(|i| one.label(i)).collect::<Vec<_>>(),
        [0, 0, 0, 0, 1, 1, 1, 1, 2]
    );
}

#[test]
fn fingerprint_notices_a_renamed_image() {
    let temp = tempfile::tempdir().unwrap();
    png(&temp.path().join("a/1.png"), 2, 0);
    let before = ImageFolder::open(temp.path()).unwrap().fingerprint().unwrap();
    fs::rename(temp.path().join("a/1.png"), temp.path().join("a/2.png")).unwrap();
    assert_ne!(ImageFolder::open(temp.path()).unwrap().fingerprint().unwrap(), before);
}

#[test]
fn formats_go_by_content_and_the_rest_is_skipped_and_counted() {
    let temp = tempfile::tempdir().unwrap();
    png(&temp.path().join("a/is-a-png.jpg"), 2, 1);
    png(&temp.path().join("a/no-ending"), 2, 2);
    fs::write(temp.path().join("a/notes.txt"), "not an image").unwrap();
    fs::write(temp.path().join("a/.DS_Store"), "x").unwrap();
    fs::write(temp.path().join("readme.md"), "x").unwrap();
    fs::create_dir(temp.path().join(".git")).unwrap();
    png(&temp.path().join("loose.png"), 2, 3);
    png(&temp.path().join("loose-without-ending"), 2, 3);
    let folder = ImageFolder::open(temp.path()).unwrap();
    assert_eq!(names(&folder), ["a/is-a-png.jpg", "a/no-ending"]);
    let skipped: Vec<_> = folder
        .skipped()
        .iter()
        .map(|one| (one.path.clone(), one.reason))
        .collect();
    let want = [
        (".git", SkipReason::Dotfile),
        ("a/.DS_Store", SkipReason::Dotfile),
        ("a/notes.txt", SkipReason::NotAnImage),
        ("loose-without-ending", SkipReason::NoClass),
        ("loose.png", SkipReason::NoClass),
        ("readme.md", SkipReason::NotAnImage),
    ];
    assert_eq!(skipped, want.map(|(name, reason)| (temp.path().join(name), reason)));
    assert_eq!(
        InMemory::decode(&folder, BadSamplePolicy::default()).unwrap().pixels()[0],
        1
    );
}

#[test]
fn file_that_claims_to_be_an_image_is_an_error_not_skipped() {
    for contents in [&b""[..], b"<html>not found</html>", b"%PDF-1.7\n"] {
        let temp = tempfile::tempdir().unwrap();
        png(&temp.path().join("a/1.png"), 2, 1);
        fs::write(temp.path().join("a/2.jpg"), contents).unwrap();
        let folder = ImageFolder::open(temp.path()).unwrap();
        let error = InMemory::decode(&folder, BadSamplePolicy::default()).unwrap_err();
        assert!(
            matches!(&error, Error::UnsupportedFormat { path, .. } if path.ends_with("a/2.jpg")),
            "{error}"
        );
    }
}

#[test]
fn empty_classes_and_splits_are_errors() {
    let temp = tempfile::tempdir().unwrap();
    assert!(matches!(ImageFolder::open(temp.path()), Err(Error::EmptySplit { .. })));
    png(&temp.path().join("a/1.png"), 2, 1);
    fs::create_dir(temp.path().join("b")).unwrap();
    let error = ImageFolder::open(temp.path()).unwrap_err();
    assert!(
        matches!(&error, Error::EmptyClass { path } if path.ends_with("b")),
        "{error}"
    );
    assert!(matches!(
        ImageFolder::open(&temp.path().join("missing")),
        Err(Error::Io { .. })
    ));
}

#[test]
fn first_odd_size_is_named() {
    let temp = tempfile::tempdir().unwrap();
    for index in 0..20 {
        png(
            &temp.path().join(format!("a/{index:02}.png")),
            if index == 7 || index > 15 { 3 } else { 2 },
            0,
        );
    }
    match InMemory::decode(&ImageFolder::open(temp.path()).unwrap(), BadSamplePolicy::default()).unwrap_err() {
        Error::SizeMismatch {
            path,
            index: 7,
            expected: (2, 2),
            got: (3, 3),
        } => assert!(path.ends_with("a/07.png")),
        other => panic!("{other}"),
    }
}

#[test]
fn file_that_changes_or_vanishes_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a/1.png");
    png(&path, 9, 1);
    let folder = ImageFolder::open(temp.path()).unwrap();
    assert!(folder.image(0).is_ok());
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(folder.image(0), Err(Error::Changed { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(folder.image(0), Err(Error::Io { .. })));
}

#[test]
fn cifar10_as_images_gets_the_short_names_and_others_keep_theirs() {
    let long = [
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ];
    let temp = tempfile::tempdir().unwrap();
    for split in ["train", "test"] {
        for (label, class) in long.iter().enumerate() {
            png(&temp.path().join(split).join(class).join("1.png"), 4, label as u8);
        }
    }
    let splits = datasets::open(temp.path()).unwrap();
    assert_eq!(splits.train.classes(), cifar10::CLASSES);
    for label in 0..10 {
        let image = splits.test.image(label).unwrap();
        assert_eq!(
            (image.pixels()[0], splits.test.label(label)),
            (label as u8, label as u32)
        );
    }
    let folders = ImageFolder::open_splits(temp.path()).unwrap();
    assert_eq!(folders.train.classes(), long);
    fs::rename(temp.path().join("test/truck"), temp.path().join("test/lorry")).unwrap();
    assert!(matches!(datasets::open(temp.path()), Err(Error::ClassMismatch { .. })));
    for split in ["train", "test"] {
        for class in &long[1..9] {
            fs::remove_dir_all(temp.path().join(split).join(class)).unwrap();
        }
    }
    fs::rename(temp.path().join("test/lorry"), temp.path().join("test/truck")).unwrap();
    let two: Splits<InMemory> = datasets::open(temp.path()).unwrap();
    assert_eq!(two.train.classes(), ["airplane", "truck"]);
    assert_eq!(two.into_dyn().train.len(), 2);
}

#[cfg(unix)]
#[test]
fn link_loops_are_counted_and_names_need_not_be_utf8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let temp = tempfile::tempdir().unwrap();
    let class = temp.path().join(OsStr::from_bytes(b"cr\xe9me"));
    png(&class.join(OsStr::from_bytes(b"\xff.png")), 2, 1);
    std::os::unix::fs::symlink(&class, class.join("again")).unwrap();
    let folder = ImageFolder::open(temp.path()).unwrap();
    assert_eq!(
        (folder.len(), count_skipped(folder.skipped(), SkipReason::Loop)),
        (1, 1)
    );
    assert_eq!(folder.classes(), ["cr\u{fffd}me"]);
    assert_eq!(InMemory::decode(&folder, BadSamplePolicy::default()).unwrap().len(), 1);
    // Another name that reads the same.
    png(&temp.path().join(OsStr::from_bytes(b"cr\xe8me")).join("1.png"), 2, 1);
    assert!(matches!(
        ImageFolder::open(temp.path()),
        Err(Error::AmbiguousClass { .. })
    ));
}
