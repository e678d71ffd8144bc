//! The files that the rules look at: what git tracks or would track; without git, the folders that hold our sources.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::cargo;

/// Extensions of the text that people write here.
const TEXT: &[&str] = &[
    "cpp",
    "cu",
    "cuh",
    "css",
    "h",
    "html",
    "js",
    "md",
    "py",
    "rs",
    "sh",
    "toml",
    "txt",
    "yaml",
    "yml",
    "gitignore",
];

/// One regular file. Its path is relative to the root, with `/` between the parts.
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// The content, where the extension is one of text and the content is UTF-8.
    pub(crate) text: Option<String>,
    pub(crate) tracked: bool,
}

/// All files by path. A file that git ignores is not ours.
pub(crate) fn entries() -> Result<Vec<Entry>> {
    let root = &cargo::root();
    let mut files = BTreeMap::new();
    match git_files(root, &["--others", "--exclude-standard"]).zip(git_files(root, &["--cached"])) {
        Some((untracked, tracked)) => {
            files.extend(untracked.into_iter().map(|path| (path, false)));
            files.extend(tracked.into_iter().map(|path| (path, true)));
        }
        None => {
            for folder in [".cargo", ".ci", ".github", "crates", "docs", "scripts", "xtask"] {
                walk(root, folder, &mut files)?;
            }
        }
    }
    let mut entries = Vec::new();
    for (path, tracked) in files {
        let file = root.join(&path);
        // A tracked file may be deleted; a link is not a file.
        let Ok(metadata) = fs::symlink_metadata(&file) else {
            continue;
        };
        if !metadata.is_file() {
            continue;
        }
        let extension = path.rsplit(['.', '/']).next().unwrap_or_default();
        let text = TEXT
            .contains(&extension)
            .then(|| fs::read_to_string(&file).ok())
            .flatten();
        entries.push(Entry {
            path,
            bytes: metadata.len(),
            text,
            tracked,
        });
    }
    Ok(entries)
}

/// `None` where there is no git or no repository, as in an unpacked archive.
fn git_files(root: &Path, which: &[&str]) -> Option<Vec<String>> {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-z"])
        .args(which)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let files: Vec<String> = names.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    Some(files)
}

fn walk(root: &Path, folder: &str, files: &mut BTreeMap<String, bool>) -> Result<()> {
    let Ok(children) = fs::read_dir(root.join(folder)) else {
        return Ok(());
    };
    for child in children {
        let child = child.with_context(|| format!("cannot list {folder}"))?;
        let path = format!("{folder}/{}", child.file_name().display());
        let kind = child.file_type().with_context(|| format!("cannot look at {path}"))?;
        if kind.is_dir() && !path.ends_with("/target") {
            walk(root, &path, files)?;
        } else if kind.is_file() {
            files.insert(path, true);
        }
    }
    Ok(())
}
