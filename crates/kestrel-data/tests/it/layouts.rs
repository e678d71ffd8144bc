//! What a path is taken for: trees at any depth, folders that are no classes, archives of one kind and another.

use std::fs::{self, File};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use kestrel_data::datasets::{self, ImageFiles, ImageFolder, ImageTar, Opened, SkipReason};
use kestrel_data::{Dataset, Error, Result, inspect};

use crate::skipped::count_skipped;

/// Writes an image of one colour, making its folders.
fn png(path: &Path, side: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = Vec::new();
    let pixels = vec![7; (side * side * 3) as usize];
    PngEncoder::new(&mut file)
        .write_image(&pixels, side, side, ExtendedColorType::Rgb8)
        .unwrap();
    fs::write(path, file).unwrap();
}

/// A tree of these images.
fn tree(files: &[&str]) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    for name in files {
        png(&temp.path().join(name), 2);
    }
    temp
}

/// A tar of these images, in this order.
fn tar(folder: &Path, files: &[&str]) -> std::path::PathBuf {
    let path = folder.join("images.tar");
    let mut tar = tar::Builder::new(File::create(&path).unwrap());
    for name in files {
        png(&folder.join("one.png"), 2);
        tar.append_path_with_name(folder.join("one.png"), name).unwrap();
    }
    tar.into_inner().unwrap();
    path
}

fn classes(path: &Path) -> Vec<String> {
    match datasets::open_files(path).unwrap().unwrap() {
        Opened::Splits(splits) => splits.train.classes().to_vec(),
        Opened::Whole(whole) => whole.classes().to_vec(),
    }
}

#[test]
fn class_folders_open_with_their_images_at_any_depth() {
    for files in [
        ["cat/2021/1.png", "dog/2021/2.png"],
        ["cat/a/b/c/d/1.png", "dog/2.png"],
        ["cat/no-ending", "dog/years/no-ending"],
    ] {
        let temp = tree(&files);
        assert_eq!(classes(temp.path()), ["cat", "dog"]);
        assert!(matches!(
            datasets::open_any(temp.path(), Default::default()).unwrap(),
            Opened::Whole(whole) if whole.len() == 2
        ));
        assert!(matches!(
            datasets::open_undecoded(temp.path()),
            Ok(Some(Opened::Whole(_)))
        ));
        assert_eq!(inspect::inspect(temp.path(), &|_, _| {}).unwrap().splits[0].samples, 2);
        let archive = tar(temp.path(), &files);
        assert_eq!(classes(&archive), ["cat", "dog"]);
    }
    // Pictures that lie in no folder, or in a hidden one, make no class.
    let temp = tree(&["1.png", ".thumbnails/2.png"]);
    fs::create_dir(temp.path().join("empty")).unwrap();
    fs::write(temp.path().join("empty/notes.txt"), "none").unwrap();
    assert!(datasets::open_files(temp.path()).unwrap().is_none());
}

#[test]
fn folders_named_like_splits_are_no_classes() {
    let trees: [&[&str]; 9] = [
        &["train/cat/1.png", "valid/cat/2.png"],
        // Loose pictures beside the class folders change nothing.
        &["train/loose.png", "train/cat/1.png", "valid/cat/2.png"],
        &["Train/cat/1.png", "Test/cat/2.png"],
        &["training/cat/1.png", "validation/cat/2.png"],
        &["train/cat/1.png", "eval/cat/2.png", "unlabelled/3.png"],
        &["test/cat/1.png", "val/cat/2.png"],
        &["train/cat/1.png"],
        // Splits below the classes, and data sets beside one another.
        &["cat/train/1.png", "cat/test/2.png", "dog/train/3.png", "dog/test/4.png"],
        &["flowers/train/rose/1.png", "flowers/val/rose/2.png", "pets/cat/3.png"],
    ];
    for files in trees {
        let temp = tree(files);
        let archive = tar(temp.path(), files);
        let in_tar = ImageTar::open(&archive).map(|_| ());
        fs::remove_file(temp.path().join("one.png")).unwrap();
        fs::remove_file(&archive).unwrap();
        let in_folder = datasets::open_any(temp.path(), Default::default()).map(|_| ());
        let mut both = vec![(temp.path(), in_folder), (archive.as_path(), in_tar)];
        if files.len() == 1 {
            // A tar of one folder is that folder's, whatever its name.
            both.truncate(1);
        }
        for (path, opened) in both {
            let Err(error) = opened else {
                panic!("{files:?} in {} is opened", path.display())
            };
            assert!(matches!(error, Error::SplitsNotClasses { .. }), "{files:?}: {error}");
            let text = error.to_string();
            assert!(
                text.contains(path.to_str().unwrap()) && text.contains("train/<class>"),
                "{text}"
            );
        }
    }
    // A vehicle, and a folder in a class that is of no split.
    let files = ["car/1.png", "train/2.png", "car/test/3.png"];
    let temp = tree(&files);
    assert_eq!(classes(temp.path()), ["car", "train"]);
    assert_eq!(classes(&tar(temp.path(), &files)), ["car", "train"]);
    // Who says that a folder holds classes is believed.
    let temp = tree(&["train/1.png", "valid/2.png"]);
    assert_eq!(ImageFolder::open(temp.path()).unwrap().classes(), ["train", "valid"]);
}

/// The data set of a path is refused for the folders that are named like splits and are none.
fn refused_for(path: &Path, names: &[&str]) {
    for opened in [
        datasets::open_files(path).map(|_| ()),
        inspect::inspect(path, &|_, _| {}).map(|_| ()),
    ] {
        let error = opened.unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(&error, Error::UnknownSplit { found, .. } if found == names),
            "{names:?}: {text}"
        );
        assert!(
            text.contains(path.to_str().unwrap()) && text.contains("train, val and test"),
            "{text}"
        );
    }
}

#[test]
fn folders_beside_the_splits_that_are_named_like_splits_are_refused() {
    let both = ["train/cat/1.png", "test/cat/2.png"];
    for names in [
        &["valid"][..],
        &["validation"],
        &["dev"],
        &["Val"],
        &["Train"],
        &["eval", "testing"],
    ] {
        let more: Vec<String> = names.iter().map(|name| format!("{name}/cat/3.png")).collect();
        let files: Vec<&str> = both.iter().copied().chain(more.iter().map(String::as_str)).collect();
        let temp = tree(&files);
        let archive = tar(temp.path(), &files);
        refused_for(&archive, names);
        fs::remove_file(temp.path().join("one.png")).unwrap();
        fs::remove_file(&archive).unwrap();
        refused_for(temp.path(), names);
    }
    // One that is none, for it is a file.
    let temp = tree(&both);
    fs::write(temp.path().join("valid"), "text").unwrap();
    assert_eq!(classes(temp.path()), ["cat"]);
}

#[test]
fn what_lies_beside_the_splits_is_left_out_by_name() {
    let files = [
        "train/cat/1.png",
        "val/cat/2.png",
        "unlabelled/3.png",
        "unlabelled/deep/4.png",
        "loose.png",
    ];
    let temp = tree(&files);
    fs::write(temp.path().join("README.txt"), "of the pictures").unwrap();
    fs::write(temp.path().join(".cache"), "x").unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let packed = elsewhere.path().join("packed.tar");
    let mut archive = tar::Builder::new(File::create(&packed).unwrap());
    archive.append_dir_all("all", temp.path()).unwrap();
    archive.into_inner().unwrap();
    for (path, below) in [(temp.path(), temp.path().to_owned()), (&packed, packed.join("all"))] {
        let report = inspect::inspect(path, &|_, _| {}).unwrap();
        let left_out: Vec<(&str, &str)> = report
            .skipped
            .iter()
            .map(|one| (one.path.strip_prefix(below.to_str().unwrap()).unwrap(), one.reason))
            .collect();
        let want = [
            ("/.cache", SkipReason::Dotfile),
            ("/README.txt", SkipReason::NotAnImage),
            ("/loose.png", SkipReason::NoClass),
            ("/unlabelled", SkipReason::NoSplit),
        ];
        assert_eq!(left_out, want.map(|(name, reason)| (name, reason.words())));
    }
}

#[test]
fn photos_of_cifar10s_classes_stay_in_their_files() {
    let names = [
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
    for (place, name) in names.iter().enumerate() {
        for split in ["train", "test"] {
            png(&temp.path().join(split).join(name).join("0.png"), 32 + place as u32);
        }
    }
    let opened = datasets::open_undecoded(temp.path()).unwrap();
    assert!(matches!(opened, Some(Opened::Splits(splits)) if splits.train.len() == 10));
}

#[test]
fn loose_pictures_in_a_tar_make_no_class_and_hide_none() {
    let temp = tempfile::tempdir().unwrap();
    let loose = |tar: &ImageTar| count_skipped(tar.skipped(), SkipReason::NoClass);
    let skipped = |opened: Opened<ImageTar>| match opened {
        Opened::Splits(splits) => loose(splits.train.as_ref()),
        Opened::Whole(whole) => loose(whole.as_ref()),
    };
    let flat = ["flowers/rose/1.png", "flowers/preview.png", "flowers/tulip/2.png"];
    let archive = tar(temp.path(), &flat);
    assert_eq!(classes(&archive), ["rose", "tulip"]);
    assert_eq!(skipped(ImageTar::open(&archive).unwrap()), 1);
    let Opened::Whole(packed) = ImageTar::open(&archive).unwrap() else {
        panic!("it has splits")
    };
    let unpacked = tree(&flat);
    let unpacked = ImageFolder::open(&unpacked.path().join("flowers")).unwrap();
    assert_eq!(packed.fingerprint().unwrap(), unpacked.fingerprint().unwrap());
    for (files, name) in [
        (packed.as_ref() as &dyn ImageFiles, "flowers/preview.png"),
        (&unpacked, "preview.png"),
    ] {
        let [left_out] = files.skipped() else {
            panic!("{:?}", files.skipped())
        };
        assert!(
            left_out.reason == SkipReason::NoClass && left_out.path.ends_with(name),
            "{left_out:?}"
        );
    }
    let splits = [
        "preview.png",
        "flowers/preview.png",
        "flowers/test/rose/1.png",
        "flowers/train/rose/2.png",
        "flowers/train/preview.png",
    ];
    let archive = tar(temp.path(), &splits);
    let opened = ImageTar::open(&archive).unwrap();
    assert!(matches!(&opened, Opened::Splits(splits) if splits.train.len() == 1 && splits.test.len() == 1));
    assert_eq!((classes(&archive), skipped(opened)), (vec!["rose".to_owned()], 3));
    // Without a folder around them all, the folders are the classes.
    let archive = tar(temp.path(), &["rose/1.png", "preview.png", "tulip/wild/2.png"]);
    assert_eq!(classes(&archive), ["rose", "tulip"]);
    assert_eq!(skipped(ImageTar::open(&archive).unwrap()), 1);
}

#[test]
fn a_global_header_of_a_tar_is_passed_over() {
    let temp = tempfile::tempdir().unwrap();
    png(&temp.path().join("one.png"), 2);
    let archive = temp.path().join("as-git-makes-it.tar");
    let mut tar = tar::Builder::new(File::create(&archive).unwrap());
    let comment = b"52 comment=0123456789012345678901234567890123456789\n";
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XGlobalHeader);
    header.set_size(comment.len() as u64);
    tar.append_data(&mut header, "pax_global_header", comment.as_slice())
        .unwrap();
    for name in ["rose/1.png", "tulip/2.png"] {
        tar.append_path_with_name(temp.path().join("one.png"), name).unwrap();
    }
    tar.into_inner().unwrap();
    assert_eq!(classes(&archive), ["rose", "tulip"]);
}

/// A `.tar.gz` of a tree below `prefix`.
fn tar_gz(root: &Path, path: &Path, prefix: &str) {
    let mut tar = tar::Builder::new(GzEncoder::new(File::create(path).unwrap(), Compression::fast()));
    tar.append_dir_all(prefix, root).unwrap();
    tar.into_inner().unwrap().finish().unwrap();
}

#[test]
fn a_compressed_archive_of_pictures_is_told_to_be_unpacked() {
    let temp = tree(&["tree/rose/1.png", "tree/tulip/2.png"]);
    for name in ["flowers.tar.gz", "flowers.tgz"] {
        let archive = temp.path().join(name);
        tar_gz(&temp.path().join("tree"), &archive, "flowers");
        for error in [
            datasets::open_any(&archive, Default::default()).map(|_| ()),
            datasets::open_undecoded(&archive).map(|_| ()),
            inspect::inspect(&archive, &|_, _| {}).map(|_| ()),
        ] {
            let error = error.unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, Error::CompressedArchive { .. }), "{text}");
            assert!(
                text.contains(name) && text.contains("\"flowers\"") && text.contains("unpack it"),
                "{text}"
            );
        }
        // One that is damaged is said to be.
        let bytes = fs::read(&archive).unwrap();
        fs::write(&archive, &bytes[..20]).unwrap();
        let error: Result<_> = datasets::open_any(&archive, Default::default());
        assert!(matches!(error, Err(Error::Io { action: "unpack", .. })));
    }
}

#[cfg(unix)]
#[test]
fn links_to_folders_above_are_never_followed() {
    use std::os::unix::fs::symlink;

    let files = ["train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/dog/4.png"];
    for (link, target) in [
        // The split's folder, the data set's, and one above that.
        ("train/cat/all", ".."),
        ("train/cat/up", "../.."),
        ("train/cat/x", "../../.."),
        ("train/all", "."),
        ("train/up", "../"),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("data");
        for name in files {
            png(&root.join(name), 2);
        }
        symlink(target, root.join(link)).unwrap();
        let splits = ImageFolder::open_splits(&root).unwrap();
        assert_eq!(splits.train.classes(), ["cat", "dog"], "{link}");
        assert_eq!((splits.train.len(), splits.test.len()), (2, 2), "{link}");
        assert_eq!(count_skipped(splits.train.skipped(), SkipReason::Loop), 1, "{link}");
        assert_eq!(datasets::open(&root).unwrap().train.len(), 2);
    }
    // The split is a link itself, so that its class lies in two folders: the data set's and that where it really is.
    let temp = tempfile::tempdir().unwrap();
    for name in ["store/kept/cat/1.png", "store/other/2.png", "data/test/cat/3.png"] {
        png(&temp.path().join(name), 2);
    }
    let (data, class) = (temp.path().join("data"), temp.path().join("store/kept/cat"));
    symlink("../store/kept", data.join("train")).unwrap();
    symlink(&data, class.join("data")).unwrap();
    symlink(temp.path().join("store"), class.join("store")).unwrap();
    // Not above, however the path is spelt.
    symlink(temp.path().join("store/other"), class.join("other")).unwrap();
    for root in [data.clone(), temp.path().join("store/other/../../data")] {
        let splits = ImageFolder::open_splits(&root).unwrap();
        assert_eq!(splits.train.len(), 2);
        assert_eq!(count_skipped(splits.train.skipped(), SkipReason::Loop), 2);
    }
    let mut skipped = Vec::new();
    let below = datasets::images_below(&data.join("train"), &mut skipped).unwrap();
    assert_eq!((below.len(), count_skipped(&skipped, SkipReason::Loop)), (2, 2));
}
