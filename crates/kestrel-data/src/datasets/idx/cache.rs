//! MNIST and Fashion-MNIST as this program keeps them: four gzipped files that a manifest marks as complete.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::{DIGITS, into_dataset, read};
use crate::archive::{sync_folder, write_synced};
use crate::datasets::{InMemory, Splits, sample};
use crate::download::{Download, Options, Progress};
use crate::error::{Error, Result};
use crate::file_lock::lock_folder;
use crate::fingerprint::Fingerprint;
use crate::manifest::{self, Manifest};

/// A data set of four IDX files that can be fetched.
#[derive(Debug)]
pub struct Remote<'a> {
    /// Its name, for people.
    pub name: &'a str,
    /// The folder that it is kept in.
    pub folder: &'a str,
    /// The class names.
    pub classes: &'a [&'a str],
    /// Training images and labels, test images and labels.
    pub files: [Download<'a>; 4],
}

/// A gzipped IDX file with its mirrors.
macro_rules! file {
    ([$($base:literal),+], $name:literal, $size:literal, $sha256:literal) => {
        Download {
            urls: &[$(concat!($base, $name)),+],
            file_name: $name,
            size: Some($size),
            sha256: $sha256,
        }
    };
}

/// A mirrored MNIST file.
macro_rules! mnist {
    ($($rest:tt)+) => {
        file!(
            ["https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"],
            $($rest)+
        )
    };
}

/// A mirrored Fashion-MNIST file.
macro_rules! fashion {
    ($($rest:tt)+) => {
        file!(
            [
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
                "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
            ],
            $($rest)+
        )
    };
}

/// MNIST.
#[rustfmt::skip]
pub const MNIST: Remote<'_> = Remote {
    name: "MNIST",
    folder: "mnist",
    classes: &DIGITS,
    files: [
        mnist!("train-images-idx3-ubyte.gz", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        mnist!("train-labels-idx1-ubyte.gz", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        mnist!("t10k-images-idx3-ubyte.gz", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        mnist!("t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ],
};

/// Fashion-MNIST.
#[rustfmt::skip]
pub const FASHION_MNIST: Remote<'_> = Remote {
    name: "Fashion-MNIST",
    folder: "fashion-mnist",
    classes: &sample::CLASSES,
    files: [
        fashion!("train-images-idx3-ubyte.gz", 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        fashion!("train-labels-idx1-ubyte.gz", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        fashion!("t10k-images-idx3-ubyte.gz", 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        fashion!("t10k-labels-idx1-ubyte.gz", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ],
};

/// Opens the copy under `data_dir`; without one, fetches the four files there. Calls `progress` as bytes arrive, over all four.
///
/// The files go into a staging folder, each checked by size and sha256; a manifest is written, and the folder is renamed. What
/// an interrupted download left there is gone on from. One process at a time does all of it.
///
/// # Errors
/// [`Error::Busy`] while another process fetches them; [`Error::Unverified`] for a folder without a manifest;
/// [`Error::ChecksumMismatch`] for a file that changed since; those of [`Download::fetch`], [`super::read`] and
/// [`into_dataset`]; [`Error::Io`].
pub fn open_or_download(
    data_dir: &Path,
    remote: &Remote<'_>,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Splits<InMemory>> {
    let folder = data_dir.join(remote.folder);
    if !folder.exists() {
        fetch(data_dir, &folder, remote, options, progress)?;
    }
    let _span = tracing::info_span!("load", source = %folder.display()).entered();
    let Some(manifest) = Manifest::read(&folder)? else {
        return Err(Error::Unverified { path: folder });
    };
    let file = |file: &Download<'_>| {
        let path = folder.join(file.file_name);
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        manifest.check(file.file_name, &bytes, &path)?;
        read(bytes.as_slice(), &path)
    };
    let split = |name: &str, images, labels| -> Result<Arc<InMemory>> {
        let source = format!("{} {name} ({})", remote.name, folder.display());
        let classes = remote.classes.iter().map(ToString::to_string).collect();
        into_dataset(&file(images)?, &file(labels)?, classes, Path::new(&source)).map(Arc::new)
    };
    let [train_images, train_labels, test_images, test_labels] = &remote.files;
    Ok(Splits {
        train: split("train", train_images, train_labels)?,
        val: None,
        test: split("test", test_images, test_labels)?,
    })
}

fn fetch(
    data_dir: &Path,
    folder: &Path,
    remote: &Remote<'_>,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    fs::create_dir_all(data_dir).map_err(Error::io("create", data_dir))?;
    let _lock = lock_folder(data_dir, remote.folder)?;
    // Another process may have made it before the lock was ours.
    if folder.exists() {
        return Ok(());
    }
    let staging = data_dir.join(format!(".{}.staging", remote.folder));
    fs::create_dir_all(&staging).map_err(Error::io("create", &staging))?;
    let total = remote.files.iter().filter_map(|file| file.size).sum();
    let mut before = 0;
    let mut manifest = Manifest::default();
    for file in &remote.files {
        let path = file.fetch(&staging, options, &mut |part| {
            let done = before + part.done;
            progress(Progress { done, total });
        })?;
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        before += bytes.len() as u64;
        manifest.add(file.file_name, Fingerprint::of(&bytes), bytes.len() as u64);
    }
    let list = staging.join(manifest::NAME);
    // One that a killed process wrote may be cut.
    match fs::remove_file(&list) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", &list)(e)),
        _ => {}
    }
    write_synced(&list, manifest.text().as_bytes())?;
    sync_folder(&staging)?;
    fs::rename(&staging, folder).map_err(Error::io("rename", &staging))?;
    sync_folder(data_dir)
}
