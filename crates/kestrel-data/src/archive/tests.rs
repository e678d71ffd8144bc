//! Hostile archives, made here byte by byte where the `tar` crate refuses to make them.

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::*;

fn header(name: &str, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    // Written into the field itself: `set_path` would refuse what these tests need.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    if matches!(kind, EntryType::Symlink | EntryType::Link) {
        header.set_link_name("/etc/passwd").unwrap();
    }
    header.set_cksum();
    header
}

/// An archive of these entries: name, kind, contents.
fn archive(folder: &Path, entries: &[(&str, EntryType, &[u8])]) -> std::path::PathBuf {
    let path = folder.join("a.tar.gz");
    let mut tar = Builder::new(GzEncoder::new(File::create(&path).unwrap(), Compression::fast()));
    for (name, kind, data) in entries {
        tar.append(&header(name, *kind, data.len() as u64), *data).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    path
}

fn expected() -> Vec<Expected> {
    vec![Expected::exactly("d/a.bin", 3), Expected::at_most("d/readme", 10)]
}

const FILE: EntryType = EntryType::Regular;

#[test]
fn good_archive_is_read_and_extracted() {
    let temp = tempfile::tempdir().unwrap();
    let entries: &[(&str, EntryType, &[u8])] = &[
        ("d/", EntryType::Directory, b""),
        ("./d/a.bin", FILE, b"abc"),
        ("d/readme", FILE, b"hi"),
    ];
    let path = archive(temp.path(), entries);
    assert_eq!(read(&path, &expected()).unwrap()["d/a.bin"], b"abc");
    let out = temp.path().join("out");
    fs::create_dir(temp.path().join(".out.staging")).unwrap();
    fs::write(temp.path().join(".out.staging/left-by-a-killed-process"), "x").unwrap();
    extract(&path, &expected(), &out).unwrap();
    assert_eq!(fs::read(out.join("a.bin")).unwrap(), b"abc");
    assert!(!out.join("left-by-a-killed-process").exists() && !temp.path().join(".out.staging").exists());
    let manifest = Manifest::read(&out).unwrap().unwrap();
    manifest.check("a.bin", b"abc", &out).unwrap();
    assert!(matches!(
        manifest.check("a.bin", b"abz", &out),
        Err(Error::ChecksumMismatch { .. })
    ));
    assert!(matches!(
        manifest.check("other", b"abc", &out),
        Err(Error::ChecksumMismatch { .. })
    ));
    assert!(matches!(
        extract(&path, &expected(), &out),
        Err(Error::Unverified { .. })
    ));
}

#[test]
fn what_tar_and_git_put_before_the_files_is_passed_over() {
    let temp = tempfile::tempdir().unwrap();
    let entries: &[(&str, EntryType, &[u8])] = &[
        ("pax_global_header", EntryType::XGlobalHeader, b"16 comment=some\n"),
        ("./", EntryType::Directory, b""),
        ("./d/", EntryType::Directory, b""),
        ("./d/a.bin", FILE, b"abc"),
    ];
    let path = archive(temp.path(), entries);
    assert_eq!(first_folder(&path).unwrap().as_deref(), Some("d"));
    assert_eq!(read(&path, &expected()).unwrap()["d/a.bin"], b"abc");
}

#[test]
fn hostile_entries_are_refused_and_nothing_is_left() {
    let long = [0u8; 11];
    let cases: &[(&str, EntryType, &[u8], &str)] = &[
        ("/d/a.bin", FILE, b"abc", "an absolute path"),
        ("C:/d/a.bin", FILE, b"abc", "an absolute path"),
        ("d/../../a.bin", FILE, b"abc", "a path that leaves its folder"),
        ("d/a.bin", EntryType::Symlink, b"", "a link"),
        ("d/a.bin", EntryType::Link, b"", "a link"),
        ("d/a.bin", EntryType::Char, b"", "a device"),
        ("d/a.bin", EntryType::Block, b"", "a device"),
        ("d/a.bin", EntryType::Fifo, b"", "a device"),
        ("d/a.bin", EntryType::Continuous, b"abc", "of a kind"),
        ("e/", EntryType::Directory, b"", "a folder that is not expected"),
        ("d/evil", FILE, b"abc", "a file that is not expected"),
        ("d/a.bin", FILE, b"abcd", "the limit is 3"),
        ("d/readme", FILE, &long, "the limit is 10"),
        ("d/a.bin", FILE, b"ab", "truncated: expected 3 bytes, got 2"),
        ("d/readme", FILE, b"ab", "lacks \"d/a.bin\""),
    ];
    for (name, kind, data, message) in cases {
        let temp = tempfile::tempdir().unwrap();
        let path = archive(temp.path(), &[(name, *kind, data)]);
        let error = extract(&path, &expected(), &temp.path().join("out"))
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{name} {kind:?}: {error}");
        assert_eq!(
            fs::read_dir(temp.path()).unwrap().count(),
            1,
            "{name}: something was left"
        );
    }
}

#[test]
fn repeated_entry_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = archive(temp.path(), &[("d/a.bin", FILE, b"abc"), ("d/a.bin", FILE, b"xyz")]);
    assert!(matches!(
        read(&path, &expected()),
        Err(Error::ArchiveEntry {
            reason: "a second time",
            ..
        })
    ));
}

#[test]
fn bomb_after_the_last_entry_ends_early() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a.tar.gz");
    let mut tar = Builder::new(GzEncoder::new(File::create(&path).unwrap(), Compression::best()));
    tar.append(&header("d/a.bin", FILE, 3), b"abc".as_slice()).unwrap();
    let mut gzip = tar.into_inner().unwrap();
    gzip.write_all(&vec![0; 64 << 20]).unwrap();
    gzip.finish().unwrap();
    assert!(matches!(read(&path, &expected()), Err(Error::TooLarge { .. })));
}

#[test]
fn truncated_archive_is_an_error_at_every_length() {
    let temp = tempfile::tempdir().unwrap();
    let path = archive(temp.path(), &[("d/a.bin", FILE, b"abc"), ("d/readme", FILE, b"hi")]);
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(read(&path, &expected()).is_err(), "{length} of {}", whole.len());
    }
}
