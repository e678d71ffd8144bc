//! `inspect`: a folder with one of each thing that can be wrong.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::codecs::bmp::BmpEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use kestrel_data::inspect::{Report, inspect};

/// 8x8 pixels that differ by `seed`.
fn pixels(seed: u8) -> Vec<u8> {
    (0..192u32).map(|i| (i * 7 + u32::from(seed) * 31) as u8).collect()
}

fn png(pixels: &[u8], width: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let height = pixels.len() as u32 / 3 / width;
    let encoder = PngEncoder::new(&mut file);
    encoder
        .write_image(pixels, width, height, ExtendedColorType::Rgb8)
        .unwrap();
    file
}

fn bmp(pixels: &[u8], width: u32) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let height = pixels.len() as u32 / 3 / width;
    BmpEncoder::new(&mut file)
        .write_image(pixels, width, height, ExtendedColorType::Rgb8)
        .unwrap();
    file.into_inner()
}

fn write(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn everything_wrong_is_found() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    let one = png(&pixels(1), 8);
    write(root, "train/a/1.png", &one);
    write(root, "train/a/2.png", &png(&pixels(2), 8));
    write(root, "train/a/cut.png", &one[..one.len() - 20]);
    write(root, "train/a/page.jpg", b"<html>not found</html>");
    write(root, "train/b/copy of 1.png", &one);
    write(root, "train/b/named.jpg", &png(&pixels(3), 8));
    write(root, "train/b/plain.png", &png(&[7; 192], 8));
    write(root, "test/a/re-encoded 2.bmp", &bmp(&pixels(2), 8));
    write(
        root,
        "test/a/long.png",
        &png(&(0..8 * 81 * 3).map(|i| (i % 251) as u8).collect::<Vec<_>>(), 81),
    );
    write(root, "test/b/tiny.png", &png(&pixels(4)[..24], 4));
    write(root, "train/loose.png", &png(&pixels(5), 8));
    write(root, "train/a/notes.txt", b"of the pictures");
    write(root, "test/.cache", b"x");
    let report = inspect(root, &|_, _| {}).unwrap();

    let [train, test] = report.splits.as_slice() else {
        panic!("{report:?}")
    };
    assert_eq!(
        (train.name, train.samples, test.name, test.samples),
        ("train", 7, "test", 3)
    );
    assert_eq!(train.classes, [("a".to_owned(), 4), ("b".to_owned(), 3)]);
    assert_eq!(train.formats, [("PNG", 6), ("unknown", 1)]);
    assert_eq!(train.sizes, [(8, 8, 5)]);
    assert_eq!(test.sizes, [(4, 2, 1), (8, 8, 1), (81, 8, 1)]);

    let of = |list: &[kestrel_data::inspect::Finding]| -> Vec<String> {
        list.iter()
            .map(|f| format!("{} {} {}", f.split, f.sample.rsplit('/').next().unwrap(), f.finding))
            .collect()
    };
    let broken = of(&report.broken);
    assert_eq!(broken.len(), 2, "{broken:?}");
    assert!(
        broken[0].starts_with("train cut.png") && broken[0].contains("cut off"),
        "{broken:?}"
    );
    assert!(
        broken[1].starts_with("train page.jpg") && broken[1].contains("HTML"),
        "{broken:?}"
    );
    let suspicious = of(&report.suspicious);
    assert_eq!(
        suspicious,
        [
            "train named.jpg it is a PNG, by its contents",
            "train plain.png all of its pixels have one colour",
            "test long.png it is 81x8 pixels, more than 10 times as long as wide",
            "test tiny.png it is only 4x2 pixels",
        ]
    );
    let duplicates: Vec<_> = report
        .duplicates
        .iter()
        .map(|d| (d.same_file, d.across_splits, d.across_classes, d.samples.len()))
        .collect();
    assert_eq!(duplicates, [(true, false, true, 2), (false, true, false, 2)]);
    assert!(report.duplicates[1].samples[1].2.ends_with("re-encoded 2.bmp"));
    assert_eq!(
        skipped(&report),
        [
            "test/.cache has a name that starts with a dot",
            "train/a/notes.txt is no image",
            "train/loose.png is an image beside the class folders, so of no class",
        ]
    );
    // An archive is read once for all of its splits.
    let elsewhere = tempfile::tempdir().unwrap();
    let archive = elsewhere.path().join("packed.tar");
    let mut tar = tar::Builder::new(fs::File::create(&archive).unwrap());
    tar.append_dir_all("", root).unwrap();
    tar.into_inner().unwrap();
    let packed = inspect(&archive, &|_, _| {}).unwrap();
    assert_eq!(skipped(&packed), skipped(&report));
}

/// Path below the data set, and reason.
fn skipped(report: &Report) -> Vec<String> {
    let below = |path: &str| {
        path.strip_prefix(&report.path)
            .unwrap()
            .trim_start_matches('/')
            .to_owned()
    };
    let each = report.skipped.iter();
    each.map(|one| format!("{} {}", below(&one.path), one.reason)).collect()
}

#[test]
fn mean_and_std_are_those_of_all_pixels() {
    let temp = tempfile::tempdir().unwrap();
    write(
        temp.path(),
        "a/1.png",
        &png(&[[0, 100, 255].repeat(32), [255, 100, 255].repeat(32)].concat(), 8),
    );
    let report = inspect(temp.path(), &|_, _| {}).unwrap();
    let split = &report.splits[0];
    assert_eq!(split.name, "all");
    assert_eq!((split.mean, split.std), ([0.5, 100.0 / 255.0, 1.0], [0.5, 0.0, 0.0]));
}
