//! What was left out when a data set was opened, and why.

use std::path::PathBuf;

/// Names that [`describe_skipped`] gives of each reason.
const NAMED: usize = 3;

/// A file or folder that was left out when a folder or an archive was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Where it is; within an archive, the archive's path and the entry's name.
    pub path: PathBuf,
    /// Why it was left out.
    pub reason: SkipReason,
}

/// Why a file or folder was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// Its name starts with a dot.
    Dotfile,
    /// It is no image, by its ending and by its first bytes.
    NotAnImage,
    /// It is an image that lies beside the class folders.
    NoClass,
    /// It is a folder that lies beside those of the splits.
    NoSplit,
    /// It is a link to a folder that it lies in.
    Loop,
}

impl SkipReason {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::NoClass,
        Self::NoSplit,
        Self::NotAnImage,
        Self::Loop,
        Self::Dotfile,
    ];

    /// The reason in words that follow a name: `is no image`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Dotfile => "has a name that starts with a dot",
            Self::NotAnImage => "is no image",
            Self::NoClass => "is an image beside the class folders, so of no class",
            Self::NoSplit => "is a folder beside those of the splits, so of none",
            Self::Loop => "is a link to a folder that it lies in",
        }
    }

    /// The reason of several, in words that follow their number: `that are no images`.
    fn words_of_several(self) -> &'static str {
        match self {
            Self::Dotfile => "whose name starts with a dot",
            Self::NotAnImage => "that are no images",
            Self::NoClass => "that are images beside the class folders, so of no class",
            Self::NoSplit => "that are folders beside those of the splits, so of none",
            Self::Loop => "that are links to a folder that they lie in",
        }
    }
}

/// What was left out, in a line for people: for each reason, how many and the first few names. Empty where nothing was.
pub fn describe_skipped(skipped: &[Skipped]) -> String {
    let parts = SkipReason::ALL.into_iter().filter_map(|reason| {
        let of_reason = skipped.iter().filter(|one| one.reason == reason);
        let names: Vec<String> = of_reason
            .map(|one| one.path.file_name().unwrap_or_default().to_string_lossy().into_owned())
            .collect();
        let more = if names.len() > NAMED { ", …" } else { "" };
        match names.as_slice() {
            [] => None,
            [name] => Some(format!("{name}, which {}", reason.words())),
            names => Some(format!(
                "{} {} ({}{more})",
                names.len(),
                reason.words_of_several(),
                names[..names.len().min(NAMED)].join(", ")
            )),
        }
    });
    parts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_once_with_the_first_names() {
        let skipped = |name: &str, reason| Skipped {
            path: format!("folder/{name}").into(),
            reason,
        };
        let mut all = vec![skipped("notes.txt", SkipReason::NotAnImage)];
        all.extend(["a.png", "b.png", "c.png", "d.png"].map(|name| skipped(name, SkipReason::NoClass)));
        assert_eq!(
            describe_skipped(&all),
            "4 that are images beside the class folders, so of no class (a.png, b.png, c.png, …); notes.txt, which is no image"
        );
        assert_eq!(describe_skipped(&[]), "");
    }
}
