//! Published weights by name: where each network's file may be fetched, checked by size and sha256.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use indicatif::MultiProgress;
use kestrel_data::download::{Download, Options};
use kestrel_models::ModelConfig;
use serde::Deserialize;

use crate::data;

/// Names a TOML file of mirrors that are used instead of the public ones, for networks that do not reach those:
///
/// ```toml
/// [[resnet18]]
/// url = "https://mirror.example.org/resnet18-f37072fd.pth"
/// size = 46830571
/// sha256 = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
/// ```
const MIRRORS: &str = "KESTREL_PRETRAINED_MIRRORS";

/// A file of weights at an address.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Mirror {
    url: String,
    /// What to keep it as; the last part of the address where nothing is said.
    file_name: Option<String>,
    size: u64,
    /// All 64 digits.
    sha256: String,
}

/// The mirrors of each network, by its name, in the order in which they are asked.
type Mirrors = BTreeMap<String, Vec<Mirror>>;

/// torchvision's weights of ImageNet (`IMAGENET1K_V1`): its own files, then the same tensors as timm has them.
fn public() -> Mirrors {
    let mirror = |url: &str, file_name: &str, size, sha256: &str| Mirror {
        url: url.to_owned(),
        file_name: Some(file_name.to_owned()),
        size,
        sha256: sha256.to_owned(),
    };
    let resnet18 = vec![
        mirror(
            "https://download.pytorch.org/models/resnet18-f37072fd.pth",
            "resnet18-f37072fd.pth",
            46_830_571,
            "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
        ),
        mirror(
            "https://huggingface.co/timm/resnet18.tv_in1k/resolve/bbd144b3e5565108aad885f145491d11bc6ce807/model.safetensors",
            "resnet18.tv_in1k.safetensors",
            46_807_446,
            "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
        ),
    ];
    let resnet50 = vec![mirror(
        "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        "resnet50-0676ba61.pth",
        102_530_333,
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
    )];
    [("resnet18".to_owned(), resnet18), ("resnet50".to_owned(), resnet50)].into()
}

/// The addresses of a network's published file, by the network's name.
///
/// # Errors
/// Where there are none for this network, or the list of mirrors cannot be read.
pub(crate) fn mirrors_of(model: &str) -> Result<Vec<Mirror>> {
    let mut mirrors = match env::var_os(MIRRORS).filter(|path| !path.is_empty()) {
        Some(path) => read(Path::new(&path)).with_context(|| format!("{MIRRORS} names {}", path.display()))?,
        None => public(),
    };
    match mirrors.remove(model) {
        Some(of_model) => Ok(of_model),
        None => {
            let known: Vec<&str> = mirrors.keys().map(String::as_str).collect();
            bail!(
                "pretrained is for {}, and the model is {model}; choose one of them with --model, or name a file or an address with \
                 --weights",
                known.join(" and ")
            )
        }
    }
}

/// The published file of a network, in `folder`: the copy that is there, else from the first mirror that delivers.
pub(crate) fn fetch(model: &ModelConfig, folder: &Path, bars: &MultiProgress) -> Result<PathBuf> {
    let mirrors = mirrors_of(model.name())?;
    let advice = || {
        let urls: Vec<&str> = mirrors.iter().map(|mirror| mirror.url.as_str()).collect();
        format!(
            "the weights cannot be had; fetch one of these where there is a network, and name the file with --weights: {}",
            urls.join(", ")
        )
    };
    first_of(&mirrors, folder, bars).with_context(advice)
}

/// Mirrors of one's own.
fn read(path: &Path) -> Result<Mirrors> {
    let mirrors: Mirrors = toml::from_str(&std::fs::read_to_string(path)?)?;
    for (name, mirrors) in &mirrors {
        ensure!(
            ModelConfig::by_name(name, 1).is_some(),
            "{name:?} is no network; they are {}",
            ModelConfig::NAMES.join(", ")
        );
        for Mirror { url, sha256, .. } in mirrors {
            let is_hash = sha256.len() == 64 && sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            ensure!(
                is_hash,
                "the sha256 of {url} is {sha256:?}, expected 64 digits in lower case"
            );
        }
    }
    Ok(mirrors)
}

impl Mirror {
    fn file_name(&self) -> &str {
        let last = || self.url.rsplit('/').next().unwrap_or_default();
        self.file_name.as_deref().unwrap_or_else(last)
    }
}

/// The first of several files of the same weights that is there, else that can be had.
fn first_of(mirrors: &[Mirror], folder: &Path, bars: &MultiProgress) -> Result<PathBuf> {
    // The one that was fetched before needs no network.
    let is_there = |mirror: &&Mirror| folder.join(mirror.file_name()).exists();
    let there = mirrors.iter().filter(is_there);
    let others = mirrors.iter().filter(|mirror| !is_there(mirror));
    let mut failed = None;
    for mirror in there.chain(others) {
        let urls = [mirror.url.as_str()];
        let download = Download {
            urls: &urls,
            file_name: mirror.file_name(),
            size: Some(mirror.size),
            sha256: &mirror.sha256,
        };
        match one(&download, folder, bars) {
            Ok(path) => return Ok(path),
            Err(error) => {
                tracing::info!("{}: {}", mirror.url, crate::describe(&error));
                failed.get_or_insert(error);
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None => bail!("no address is known"),
    }
}

/// Fetches one file, unless it is there and right.
pub(crate) fn one(download: &Download<'_>, folder: &Path, bars: &MultiProgress) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let total = download.size.unwrap_or(0);
    Ok(data::with_bar(bars, download.file_name, total, |progress| {
        download.fetch(folder, &Options::default(), progress)
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_files_are_pinned_whole() {
        let mut files = 0;
        for mirror in public().values().flatten() {
            assert_eq!(mirror.sha256.len(), 64);
            assert!(mirror.size > 40_000_000 && mirror.url.starts_with("https://"));
            let digits = mirror.file_name().rsplit_once('-').map(|(_, rest)| rest);
            if let Some(digits) = digits.and_then(|rest| rest.strip_suffix(".pth")) {
                assert!(mirror.sha256.starts_with(digits), "{}", mirror.url);
            }
            files += 1;
        }
        assert_eq!(files, 3);
    }

    #[test]
    fn mirrors_of_ones_own_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mirrors.toml");
        let parse = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path).map_err(|error| format!("{error:#}"))
        };
        let hash = "0".repeat(64);
        let entry = |name: &str, hash: &str| {
            format!("[[{name}]]\nurl = \"https://a.org/b/c.pth\"\nsize = 3\nsha256 = \"{hash}\"\n")
        };
        let good = parse(&entry("resnet34", &hash)).unwrap();
        assert_eq!(good["resnet34"][0].file_name(), "c.pth");
        for (text, word) in [
            (entry("resnet19", &hash), "\"resnet19\" is no network"),
            (entry("resnet18", "f37072fd"), "expected 64 digits"),
            (entry("resnet18", &hash).replace("size", "sice"), "sice"),
            (entry("resnet18", &hash).replace("size = 3\n", ""), "size"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn the_copy_that_is_there_comes_before_a_mirror_that_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("b-file");
        std::fs::write(&kept, b"weights").unwrap();
        // Nobody listens at this port.
        let mirror = |file_name: &str| Mirror {
            url: "http://127.0.0.1:9/none".to_owned(),
            file_name: Some(file_name.to_owned()),
            size: 7,
            sha256: kestrel_data::Fingerprint::of(b"weights").to_string(),
        };
        let bars = MultiProgress::new();
        let found = first_of(&[mirror("a-file"), mirror("b-file")], folder.path(), &bars).unwrap();
        assert_eq!(found, kept);
    }
}
