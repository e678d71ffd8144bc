//! A CUDA toolkit that compiles and links on a machine without a GPU: NVIDIA's compiler from its pip packages, and stubs of
//! the libraries that only a machine with a GPU has. It runs nothing.

mod stubs;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

/// The toolkit's version; [`stubs`] names the libraries of the same major one.
const VERSION: &str = "13.0";

/// The compiler, its headers and the runtime library: 70 MB to download, 270 MB unpacked.
const PACKAGES: &[&str] = &[
    "nvidia-cuda-nvcc",
    "nvidia-cuda-crt",
    "nvidia-nvvm",
    "nvidia-cuda-runtime",
    "nvidia-cuda-cccl",
];

/// Where the packages put their files.
const UNPACKED: &str = "nvidia/cu13";

/// Kernels are compiled for this compute capability where nothing else is said: what runs on every GPU from Ampere on.
pub(crate) const COMPUTE_CAP: &str = "80";

/// A folder with `bin/nvcc`, `include`, `lib`, `lib64` and `lib/stubs`.
pub(crate) struct Toolkit {
    folder: PathBuf,
}

impl Toolkit {
    /// The toolkit in `folder`, made there if there is none.
    pub(crate) fn in_folder(folder: &Path, python: &OsStr) -> Result<Self> {
        ensure!(
            cfg!(all(target_arch = "x86_64", target_os = "linux")),
            "the toolkit is put together for x86-64 Linux alone; install NVIDIA's"
        );
        let folder = absolute(folder).with_context(|| format!("cannot make {} absolute", folder.display()))?;
        let toolkit = Self { folder };
        if !toolkit.nvcc_runs() {
            toolkit.make(python)?;
        }
        // Quickly done, and right for the cudarc of today.
        stubs::write(&toolkit.folder.join("lib/stubs"))?;
        Ok(toolkit)
    }

    /// Where it lies, an absolute path.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The variables under which cargo finds this toolkit, for a child process.
    pub(crate) fn environment(&self, compute_cap: &OsStr) -> Result<Vec<(&'static str, OsString)>> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = [self.folder.join("bin")].into_iter().chain(env::split_paths(&path));
        let path = env::join_paths(folders).context("cannot put the toolkit on the PATH")?;
        Ok(vec![
            ("CUDA_HOME", self.folder.clone().into()),
            ("CUDA_COMPUTE_CAP", compute_cap.to_owned()),
            ("PATH", path),
        ])
    }

    fn nvcc_runs(&self) -> bool {
        runs(&self.folder.join("bin/nvcc"))
    }

    fn make(&self, python: &OsStr) -> Result<()> {
        let folder = &self.folder;
        let empty = fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
        ensure!(
            empty,
            "{} is not empty and holds no nvcc that runs; name a new folder",
            folder.display()
        );
        // Beside it, so that what is cut short is never taken for a toolkit.
        let mut partial = folder.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        remove(&partial)?;
        install(python, &partial)?;
        let unpacked = partial.join(UNPACKED);
        add_links(&unpacked)?;
        if folder.exists() {
            fs::remove_dir(folder).with_context(|| format!("cannot replace {}", folder.display()))?;
        }
        fs::rename(&unpacked, folder).with_context(|| format!("cannot create {}", folder.display()))?;
        remove(&partial)?;
        ensure!(
            self.nvcc_runs(),
            "{} does not run on this machine",
            folder.join("bin/nvcc").display()
        );
        Ok(())
    }
}

/// Whether there is an nvcc on the path: a toolkit of the machine's own.
pub(crate) fn is_installed() -> bool {
    runs(Path::new("nvcc"))
}

fn runs(nvcc: &Path) -> bool {
    let mut command = Command::new(nvcc);
    command.arg("--version").stdin(Stdio::null());
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Downloads and unpacks the packages, by pip.
fn install(python: &OsStr, target: &Path) -> Result<()> {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]);
    pip.args([
        "--disable-pip-version-check",
        "--root-user-action=ignore",
        "--no-compile",
    ]);
    // Without a network it must not take minutes to say so.
    pip.args(["--retries=1", "--timeout=30"]);
    pip.arg("--target").arg(target);
    pip.args(PACKAGES.iter().map(|package| format!("{package}=={VERSION}.*")));
    let output = pip
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", python.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        bail!("pip could not fetch {} {VERSION}: {}", PACKAGES[0], last.trim());
    }
    Ok(())
}

/// The names that compilers and linkers look for, and packages leave out.
fn add_links(toolkit: &Path) -> Result<()> {
    for (link, to) in [("lib64", "lib"), ("lib/libcudart.so", "libcudart.so.13")] {
        symlink(Path::new(to), &toolkit.join(link))?;
    }
    Ok(())
}

/// Makes `link` a link to `to`, in place of a file that is there.
#[cfg(unix)]
fn symlink(to: &Path, link: &Path) -> Result<()> {
    if fs::symlink_metadata(link).is_ok() {
        fs::remove_file(link).with_context(|| format!("cannot replace {}", link.display()))?;
    }
    std::os::unix::fs::symlink(to, link).with_context(|| format!("cannot create {}", link.display()))
}

#[cfg(not(unix))]
fn symlink(_to: &Path, link: &Path) -> Result<()> {
    bail!("cannot create {}: this system has no such links", link.display())
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_else_in_it_is_left_alone() {
        let folder = env::temp_dir().join(format!("kestrel-toolkit-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("thesis.txt"), "all there is").unwrap();
        let toolkit = Toolkit { folder: folder.clone() };
        let error = toolkit.make(OsStr::new("no-such-python")).unwrap_err().to_string();
        assert!(error.contains("is not empty"), "{error}");
        assert!(folder.join("thesis.txt").is_file());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_missing_python_is_named() {
        let error = install(OsStr::new("no-such-python"), Path::new("/nonexistent")).unwrap_err();
        assert_eq!(error.to_string(), "cannot start no-such-python");
    }

    #[test]
    fn the_toolkit_comes_first_on_the_path() {
        let toolkit = Toolkit {
            folder: PathBuf::from("/opt/cuda"),
        };
        let environment = toolkit.environment(OsStr::new("90")).unwrap();
        let value = |name: &str| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_string_lossy().into_owned()).unwrap()
        };
        assert_eq!(value("CUDA_HOME"), "/opt/cuda");
        assert_eq!(value("CUDA_COMPUTE_CAP"), "90");
        assert!(value("PATH").starts_with("/opt/cuda/bin"));
    }
}
