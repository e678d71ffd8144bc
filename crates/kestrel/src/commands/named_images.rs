//! The images that a person names on the command line: files, folders, patterns, standard input.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kestrel_data::datasets::{ImageList, describe_skipped, images_below};
use kestrel_data::decode::{Format, SNIFF_BYTES};

/// Standard input's name among paths.
const STDIN: &str = "-";

/// The images that `names` stand for, in their order; `stdin` is read where one of them is `-`.
///
/// A folder stands for every image in it and below it. A name that is no file and has `*`, `?` or `[` in it is a pattern, in which
/// `**` goes through folders, and stands for each file once. Standard input is an image if it begins like one, else a list of names, one a line.
pub(crate) fn named_images(names: &[PathBuf], stdin: &mut dyn Read) -> Result<ImageList> {
    let mut paths = Vec::new();
    let mut piped = None;
    for name in names {
        if name.as_os_str() != STDIN {
            expand(name, &mut paths)?;
            continue;
        }
        if piped.is_some() {
            bail!("{STDIN} is named twice, but standard input can be read once");
        }
        let mut bytes = Vec::new();
        stdin.read_to_end(&mut bytes).context("cannot read standard input")?;
        if Format::sniff(&bytes[..bytes.len().min(SNIFF_BYTES)]).is_some() {
            piped = Some(bytes);
            continue;
        }
        piped = Some(Vec::new());
        let text = String::from_utf8(bytes)
            .context("standard input is neither an image that can be decoded nor a list of paths in UTF-8")?;
        for line in text.lines().filter(|line| !line.is_empty()) {
            expand(Path::new(line), &mut paths)?;
        }
    }
    let list = ImageList::new(paths);
    Ok(match piped {
        Some(bytes) if !bytes.is_empty() => list.with_bytes(STDIN, bytes),
        _ => list,
    })
}

/// Adds the images that a name stands for.
fn expand(name: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    if name.is_dir() {
        let mut skipped = Vec::new();
        let images = images_below(name, &mut skipped)?;
        if images.is_empty() {
            bail!("the folder {} holds no images", name.display());
        }
        if !skipped.is_empty() {
            tracing::info!("{}: left out {}", name.display(), describe_skipped(&skipped));
        }
        paths.extend(images);
        return Ok(());
    }
    match name.to_str() {
        Some(pattern) if !name.exists() && pattern.contains(['*', '?', '[']) => {
            let before = paths.len();
            let matches = glob::glob(pattern).with_context(|| format!("the pattern {pattern}"))?;
            // By a link to a folder above, `**` comes to the same file again and again.
            let mut seen = HashSet::new();
            for path in matches {
                let path = path.with_context(|| format!("the pattern {pattern}"))?;
                // A pattern may match a folder's name beside the files in it.
                if path.is_file() && seen.insert(real_place(&path)) {
                    paths.push(path);
                }
            }
            if paths.len() == before {
                bail!("the pattern {pattern} matches no file");
            }
        }
        // Whether it can be read is found out with the others.
        _ => paths.push(name.to_owned()),
    }
    Ok(())
}

/// A name's place without links in its folder's path. The name itself may be a link, and is then an image like the others.
fn real_place(name: &Path) -> PathBuf {
    let folder = name.parent().filter(|folder| !folder.as_os_str().is_empty());
    let real = folder.unwrap_or(Path::new(".")).canonicalize();
    real.map_or_else(
        |_| name.to_owned(),
        |real| real.join(name.file_name().unwrap_or_default()),
    )
}

#[cfg(test)]
mod tests {
    use kestrel_data::Dataset;

    use super::*;

    fn named(folder: &Path, names: &[&str], stdin: &[u8]) -> Result<Vec<String>> {
        let names: Vec<PathBuf> = names
            .iter()
            .map(|name| if *name == STDIN { name.into() } else { folder.join(name) })
            .collect();
        let list = named_images(&names, &mut &*stdin)?;
        let short = |path: &Path| path.strip_prefix(folder).unwrap_or(path).display().to_string();
        Ok((0..list.len()).map(|i| short(list.path(i))).collect())
    }

    #[cfg(unix)]
    #[test]
    fn a_pattern_names_a_file_once_also_through_links_to_folders_above() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("cat")).unwrap();
        std::fs::write(dir.path().join("cat/1.png"), "").unwrap();
        std::os::unix::fs::symlink("..", dir.path().join("cat/all")).unwrap();
        assert_eq!(named(dir.path(), &["**/*.png"], b"").unwrap(), ["cat/1.png"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_pattern_names_links_to_images_as_a_folder_does() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("some");
        std::fs::create_dir(&folder).unwrap();
        for name in ["store.jpg", "some/2.jpg"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        for (link, target) in [("1.jpg", "../store.jpg"), ("3.jpg", "../store.jpg"), ("4.jpg", "2.jpg")] {
            std::os::unix::fs::symlink(target, folder.join(link)).unwrap();
        }
        let want = ["some/1.jpg", "some/2.jpg", "some/3.jpg", "some/4.jpg"];
        for name in ["some/*.jpg", "some"] {
            assert_eq!(named(dir.path(), &[name], b"").unwrap(), want, "{name}");
        }
    }

    #[test]
    fn files_folders_patterns_and_lists_keep_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("b/deep")).unwrap();
        for file in ["z.png", "b/2.png", "b/1.jpg", "b/deep/3.png", "b/text.txt", "[odd].png"] {
            std::fs::write(root.join(file), "").unwrap();
        }
        let got = named(root, &["z.png", "b", "b/*.png", "b/**/*.png", "[odd].png"], b"").unwrap();
        let want = [
            "z.png",
            "b/1.jpg",
            "b/2.png",
            "b/deep/3.png",
            "b/2.png",
            "b/2.png",
            "b/deep/3.png",
            "[odd].png",
        ];
        assert_eq!(got, want);
        let list = format!("{}\n\nno-such.png\r\n", root.join("z.png").display());
        assert_eq!(named(root, &["-"], list.as_bytes()).unwrap(), ["z.png", "no-such.png"]);
        assert_eq!(named(root, &["z.png", "-"], b"GIF89a...").unwrap(), ["z.png", "-"]);
    }

    #[test]
    fn what_stands_for_nothing_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        for (names, stdin, word) in [
            (&["empty"][..], &b""[..], "holds no images"),
            (&["*.gif"], b"", "matches no file"),
            (&["-", "-"], b"GIF89a...", "twice"),
            (&["-"], b"\xff\xfe", "neither"),
        ] {
            let error = format!("{:#}", named(dir.path(), names, stdin).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }
}
