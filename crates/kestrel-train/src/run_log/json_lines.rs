//! A file of one JSON object a line, that grows; what it knows of a crash is how to cut itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::{Error, Result};

/// A file of lines, open at its end.
pub(super) struct JsonLines {
    path: PathBuf,
    file: File,
    is_empty: bool,
}

impl JsonLines {
    /// Opens the file, or makes it. It is cut before the first line that `keep` refuses, and before a last line that was
    /// not written whole.
    pub(super) fn open(path: &Path, keep: impl Fn(&Value) -> bool) -> Result<Self> {
        let failed = |source| Error::Write {
            path: path.to_owned(),
            source,
        };
        let text = match std::fs::read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => text.map_err(|source| Error::Read {
                path: path.to_owned(),
                source,
            })?,
        };
        let kept = kept(&text, keep);
        // Each line is written by one call, so that no other is in its midst.
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .map_err(failed)?;
        if kept < text.len() {
            file.set_len(kept as u64).map_err(failed)?;
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            is_empty: kept == 0,
        })
    }

    /// Whether it has no line yet.
    pub(super) fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Adds a line.
    pub(super) fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_vec(line).map_err(|e| self.failed(e.into()))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(|e| self.failed(e))?;
        self.is_empty = false;
        Ok(())
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Write {
            path: self.path.clone(),
            source,
        }
    }
}

/// How many bytes stay. A line that is no JSON, in the midst of the file, is not ours to remove.
fn kept(text: &[u8], keep: impl Fn(&Value) -> bool) -> usize {
    let mut end = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let whole = line.ends_with(b"\n");
        let refused = serde_json::from_slice::<Value>(line).is_ok_and(|value| !keep(&value));
        if !whole || refused {
            break;
        }
        end += line.len();
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_and_what_follows_a_refused_one_are_cut() {
        let text = b"{\"n\":1}\nnoise\n{\"n\":2}\n{\"n\":3}\n{\"n\":1}\n{\"n\"";
        let up_to = |limit: u64| kept(text, |v| v["n"].as_u64().is_none_or(|n| n <= limit));
        assert_eq!(&text[..up_to(2)], b"{\"n\":1}\nnoise\n{\"n\":2}\n");
        assert_eq!(
            &text[..up_to(9)],
            b"{\"n\":1}\nnoise\n{\"n\":2}\n{\"n\":3}\n{\"n\":1}\n"
        );
        assert_eq!(up_to(0), 0);
        for end in 0..8 {
            assert_eq!(kept(&text[..end], |_| true), 0, "{end}");
        }
    }

    #[test]
    fn a_full_disk_is_an_error_with_the_path() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            return;
        }
        let file = OpenOptions::new().append(true).open(full).unwrap();
        let mut lines = JsonLines {
            path: full.to_owned(),
            file,
            is_empty: true,
        };
        let error = lines.write(&1).unwrap_err();
        assert!(
            matches!(error, Error::Write { .. }) && error.to_string().contains("/dev/full"),
            "{error}"
        );
    }
}
