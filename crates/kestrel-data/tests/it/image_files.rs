//! Image files in trees of splits, in tar archives and in tables.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use kestrel_data::datasets::{self, ImageCsv, ImageFiles, ImageFolder, ImageTar, Opened, SkipReason};
use kestrel_data::{Dataset, Error, InMemory, Subset};

use crate::skipped::count_skipped;

fn png(value: u8) -> Vec<u8> {
    let mut file = Vec::new();
    PngEncoder::new(&mut file)
        .write_image(&[value; 12], 2, 2, ExtendedColorType::Rgb8)
        .unwrap();
    file
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Writes `files` as PNGs, each of its number's value.
fn tree(root: &Path, files: &[&str]) {
    for (value, name) in files.iter().enumerate() {
        write(&root.join(name), &png(value as u8));
    }
}

fn values(dataset: &dyn Dataset) -> Vec<(u8, u32)> {
    let value = |index| (dataset.image(index).unwrap().pixels()[0], dataset.label(index));
    (0..dataset.len()).map(value).collect()
}

fn pack(root: &Path, archive: &Path, prefix: &str) {
    let mut tar = tar::Builder::new(File::create(archive).unwrap());
    tar.append_dir_all(prefix, root).unwrap();
    tar.into_inner().unwrap();
}

const TREE: [&str; 8] = [
    "test/a/0.png",
    "test/b/1.png",
    "train/a/x/2.png",
    "train/a/3.png",
    "train/b/4.png",
    "val/a/5.png",
    "val/b/6.png",
    "val/b/7.png",
];

#[test]
fn trees_have_a_validation_split_if_there_is_a_folder_for_it() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path(), &TREE);
    let splits = datasets::open(temp.path()).unwrap();
    assert_eq!(values(splits.train.as_ref()), [(3, 0), (2, 0), (4, 1)]);
    assert_eq!(values(splits.val.unwrap().as_ref()), [(5, 0), (6, 1), (7, 1)]);
    assert_eq!(values(splits.test.as_ref()), [(0, 0), (1, 1)]);
    // ImageNet's layout: what there is beside the training images is what is evaluated on.
    fs::remove_dir_all(temp.path().join("test")).unwrap();
    let splits = datasets::open(temp.path()).unwrap();
    assert!(splits.val.is_none());
    assert_eq!(values(splits.test.as_ref()), [(5, 0), (6, 1), (7, 1)]);
    // A flat folder is one whole.
    let flat = temp.path().join("val");
    assert!(matches!(datasets::open(&flat), Err(Error::NoSplits { .. })));
    let Opened::Whole(whole) = datasets::open_any(&flat, Default::default()).unwrap() else {
        panic!("it has splits")
    };
    assert_eq!(values(whole.as_ref()), [(5, 0), (6, 1), (7, 1)]);
    write(&temp.path().join("val/c/8.png"), &png(8));
    assert!(matches!(datasets::open(temp.path()), Err(Error::ClassMismatch { .. })));
}

#[test]
fn tar_is_the_same_data_set_as_its_folder() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("images");
    tree(&root, &TREE);
    write(&root.join("train/b/.hidden"), b"x");
    write(&root.join("train/b/notes.txt"), b"x");
    write(&root.join("val/a/a-png-without-ending"), &png(9));
    let folders = ImageFolder::open_any(&root).unwrap().splits(&root).unwrap();
    for prefix in ["", "images"] {
        let archive = temp.path().join(format!("as-{prefix}.tar"));
        pack(&root, &archive, prefix);
        let tar = ImageTar::open(&archive).unwrap().splits(&archive).unwrap();
        for ((name, folder), (_, tar)) in folders.named().zip(tar.named()) {
            assert_eq!(values(folder.as_ref()), values(tar.as_ref()), "{name}");
            assert_eq!(folder.fingerprint().unwrap(), tar.fingerprint().unwrap(), "{name}");
            assert_eq!(folder.classes(), tar.classes());
        }
        let left_out = |reason| count_skipped(tar.train.skipped(), reason);
        assert_eq!(
            (left_out(SkipReason::Dotfile), left_out(SkipReason::NotAnImage)),
            (1, 1)
        );
        assert!(tar.train.path(0).ends_with("train/a/3.png"));
        assert_eq!(datasets::open(&archive).unwrap().val.unwrap().len(), 4);
    }
}

/// Files of the same names and sizes: only what they hold is another.
#[test]
fn contents_count_where_names_and_sizes_do_not_tell() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("flat");
    let names = ["a/0.png", "a/1.png", "b/2.png"];
    tree(&root, &names);
    let (first, other) = (root.join("a/0.png"), root.join("a/1.png"));
    write(&first, &png(5));
    write(&other, &png(6));
    assert_eq!(fs::metadata(&first).unwrap().len(), fs::metadata(&other).unwrap().len());
    let table = temp.path().join("t.csv");
    let rows = names.map(|name| format!("flat/{name},{}\n", &name[..1]));
    fs::write(&table, format!("path,label\n{}", rows.concat())).unwrap();
    let archive = temp.path().join("flat.tar");
    // The names and sizes' fingerprint, that of the contents, and the contents' of the first and of the last sample alone.
    let all = |path: &Path| {
        let Opened::Whole(whole) = datasets::open_files(path).unwrap().unwrap() else {
            panic!("it has splits")
        };
        let whole = whole as Arc<dyn Dataset>;
        let of = |indices| {
            let part = Subset::new(Arc::clone(&whole), indices).unwrap();
            datasets::fingerprint_with_contents(&part).unwrap()
        };
        let contents = datasets::fingerprint_with_contents(whole.as_ref()).unwrap();
        (whole.fingerprint().unwrap(), contents, of(vec![0]), of(vec![2]))
    };
    pack(&root, &archive, "");
    let before = [&root, &archive, &table].map(|path| all(path));
    // A folder is its archive, by contents too.
    assert_eq!(before[0], before[1]);
    assert!(before.iter().all(|(names, contents, ..)| names != contents));
    fs::rename(&first, root.join("kept")).unwrap();
    fs::rename(&other, &first).unwrap();
    fs::rename(root.join("kept"), &other).unwrap();
    pack(&root, &archive, "");
    for (path, before) in [&root, &archive, &table].into_iter().zip(before) {
        let after = all(path);
        assert!(after.0 == before.0 && after.1 != before.1, "{}", path.display());
        // Of a part, its own files count alone.
        assert!(after.2 != before.2 && after.3 == before.3, "{}", path.display());
    }
    // Pixels in memory are their fingerprint's already.
    let decoded = InMemory::decode(&ImageFolder::open(&root).unwrap(), Default::default()).unwrap();
    assert_eq!(
        datasets::fingerprint_with_contents(&decoded).unwrap(),
        decoded.fingerprint().unwrap()
    );
}

#[test]
fn tar_of_class_folders_is_one_whole() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("flat");
    tree(&root, &["b/0.png", "a/1.png", "a-a/2.png"]);
    let archive = temp.path().join("flat.tar");
    pack(&root, &archive, "");
    let Opened::Whole(whole) = ImageTar::open(&archive).unwrap() else {
        panic!("it has splits")
    };
    assert_eq!(whole.classes(), ["a", "a-a", "b"]);
    assert_eq!(values(whole.as_ref()), [(1, 0), (2, 1), (0, 2)]);
    let unpacked = ImageFolder::open(&root).unwrap();
    assert_eq!(whole.fingerprint().unwrap(), unpacked.fingerprint().unwrap());
}

#[test]
fn cut_tar_is_an_error_at_every_block() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("flat");
    tree(&root, &["a/0.png", "b/1.png"]);
    let archive = temp.path().join("cut.tar");
    pack(&root, &archive, "");
    let whole = fs::read(&archive).unwrap();
    // The end mark is two blocks; one of them is enough to know that nothing is missing.
    for length in (0..whole.len() - 1024).step_by(64) {
        fs::write(&archive, &whole[..length]).unwrap();
        assert!(ImageTar::open(&archive).is_err(), "{length} of {}", whole.len());
    }
}

#[test]
fn tar_that_changes_in_mid_run_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("flat");
    tree(&root, &["a/0.png", "b/1.png"]);
    let archive = temp.path().join("flat.tar");
    pack(&root, &archive, "");
    let Opened::Whole(tar) = ImageTar::open(&archive).unwrap() else {
        panic!("it has splits")
    };
    let file = File::options().write(true).open(&archive).unwrap();
    file.set_len(600).unwrap();
    assert!(matches!(tar.image(1), Err(Error::Changed { got: 600, .. })));
}

#[test]
fn hostile_tars_are_refused_not_skipped() {
    type Change = fn(&mut tar::Header);
    let cases: [(&str, &str, Change); 6] = [
        ("/etc/passwd.png", "an absolute path", |_| {}),
        ("a/../../x.png", "a path that leaves its folder", |_| {}),
        ("a/link.png", "a link", |h| h.set_entry_type(tar::EntryType::Symlink)),
        ("a/hard.png", "a link", |h| h.set_entry_type(tar::EntryType::Link)),
        ("a/pipe.png", "a device", |h| h.set_entry_type(tar::EntryType::Fifo)),
        ("b/1.png", "a second time", |_| {}),
    ];
    for (name, reason, change) in cases {
        let temp = tempfile::tempdir().unwrap();
        let archive = temp.path().join("hostile.tar");
        let mut tar = tar::Builder::new(File::create(&archive).unwrap());
        for name in ["b/1.png", name] {
            let bytes = png(1);
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            if name != "b/1.png" {
                change(&mut header);
            }
            header.set_cksum();
            tar.append(&header, bytes.as_slice()).unwrap();
        }
        tar.into_inner().unwrap();
        let error = ImageTar::open(&archive).unwrap_err();
        assert!(matches!(error, Error::ArchiveEntry { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn table_lists_images_in_its_order() {
    let temp = tempfile::tempdir().unwrap();
    tree(&temp.path().join("i"), &["0.png", "1.png", "2, or so.png"]);
    let table = temp.path().join("t.csv");
    let open = |text: &str| {
        fs::write(&table, text).unwrap();
        ImageCsv::open(&table)
    };
    let whole = |text: &str| match open(text).unwrap() {
        Opened::Whole(whole) => whole,
        Opened::Splits(_) => panic!("it has splits"),
    };
    let named = whole("label,path,more\nzebra,i/1.png,x\ncat,\"i/2, or so.png\",y\nzebra,i/0.png,\n");
    assert_eq!(named.classes(), ["cat", "zebra"]);
    assert_eq!(values(named.as_ref()), [(1, 1), (2, 0), (0, 1)]);
    let numbered = whole("path,label\r\ni/0.png,10\r\ni/1.png,9\r\n");
    assert_eq!(numbered.classes(), ["9", "10"]);
    assert_eq!(values(numbered.as_ref()), [(0, 1), (1, 0)]);
    let splits = "path,label,split\ni/0.png,a,train\ni/1.png,a,test\n";
    let splits = open(splits).unwrap().splits(&table).unwrap();
    assert_eq!(
        (splits.train.len(), splits.test.len(), splits.val.is_none()),
        (1, 1, true)
    );
    assert_eq!(datasets::open(&table).unwrap().test.len(), 1);
    for (text, expect) in [
        ("file,label\ni/0.png,a\n", "line 1: there is no column \"path\""),
        ("path,label\n", "holds no samples"),
        ("", "there is no column"),
        ("path,label\ni/0.png,a\ni/9.png,a\n", "line 3: cannot read"),
        ("path,label\ni/0.png,\n", "line 2: it has no label"),
        (
            "path,label\ni/0.png,a\ni/0.png,b\n",
            "line 3: \"i/0.png\" was listed before, in line 2",
        ),
        // However it is spelt, and in another split above all.
        (
            "path,label,split\ni/0.png,a,train\n./i//0.png,a,test\n",
            "line 3: \"./i//0.png\" was listed before, in line 2",
        ),
        (
            "path,label\ni/1.png,a\ni/../i/0.png,a\ni/0.png,b\n",
            "line 4: \"i/0.png\" was listed before, in line 3",
        ),
        ("path,label\nj/0.png,a\n", "line 2: cannot read"),
        ("path,label,split\ni/0.png,a,dev\n", "line 2: split is \"dev\""),
        ("path,label,split\ni/0.png,a,train\n", "split test"),
        ("path,label\ni/0.png,a,b,c\n", "line 2"),
    ] {
        let error = open(text).unwrap_err().to_string();
        assert!(error.contains(expect) && error.contains("t.csv"), "{text:?}: {error}");
    }
}
