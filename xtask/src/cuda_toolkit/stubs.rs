//! Stubs of NVIDIA's libraries to link with: shared objects with the real ones' names and every symbol that cudarc asks for.
//!
//! A program that is linked with them runs with the real libraries where they are. With the stubs themselves it starts, and
//! finds no device.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::symlink;
use crate::cargo;

/// A library that cudarc links with.
struct Library {
    /// cudarc's module of its functions.
    module: &'static str,
    /// The name that the linker looks for.
    file: &'static str,
    /// The name that the loader looks for.
    soname: &'static str,
    /// What a stub returns: `CUDA_ERROR_STUB_LIBRARY`, or the library's own word for "not initialised".
    status: u32,
}

/// All but the runtime library, which pip has.
const LIBRARIES: &[Library] = &[
    library("driver", "libcuda.so", "libcuda.so.1", 34),
    library("cublas", "libcublas.so", "libcublas.so.13", 1),
    library("cublaslt", "libcublasLt.so", "libcublasLt.so.13", 1),
    library("curand", "libcurand.so", "libcurand.so.10", 101),
    library("nvrtc", "libnvrtc.so", "libnvrtc.so.13", 11),
    library("cudnn", "libcudnn.so", "libcudnn.so.9", 1001),
];

const fn library(module: &'static str, file: &'static str, soname: &'static str, status: u32) -> Library {
    Library {
        module,
        file,
        soname,
        status,
    }
}

/// Writes the stubs into `folder`.
pub(super) fn write(folder: &Path) -> Result<()> {
    let cudarc = sources("cudarc")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for library in LIBRARIES {
        let path = cudarc.join("src").join(library.module).join("sys/mod.rs");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let names = externs(&text);
        ensure!(
            !names.is_empty(),
            "no function of {} is declared in {}",
            library.file,
            path.display()
        );
        compile(
            &c_source(&names, library.status),
            library.soname,
            &folder.join(library.soname),
        )?;
        symlink(Path::new(library.soname), &folder.join(library.file))?;
    }
    Ok(())
}

/// The folder of a dependency's sources.
fn sources(package: &str) -> Result<PathBuf> {
    let mut command = cargo::workspace("metadata");
    // cudarc is one of some features alone, and other systems' packages need not be here.
    command.args(["--format-version", "1", "--all-features"]);
    command.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed ({})", output.status);
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?;
    let found = packages.iter().find(|found| found["name"] == package);
    let manifest = found.and_then(|found| found["manifest_path"].as_str());
    let manifest = manifest.with_context(|| format!("{package} is no dependency"))?;
    Ok(Path::new(manifest).parent().unwrap_or(Path::new("")).to_path_buf())
}

/// The functions that a binding declares: `fn NAME(` in a block `extern "C" {`.
fn externs(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("extern \"C\" {") {
            inside = true;
        } else if line == "}" {
            inside = false;
        } else if inside {
            let function = line.trim_start_matches("pub ").strip_prefix("fn ");
            names.extend(function.and_then(|rest| rest.split_once('(')).map(|(name, _)| name));
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

fn c_source(names: &[&str], status: u32) -> String {
    let function = |name: &&str| format!("int {name}(void) {{ return {status}; }}\n");
    names.iter().map(function).collect()
}

/// Compiles `source` to the shared object `out`.
fn compile(source: &str, soname: &str, out: &Path) -> Result<()> {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(&compiler);
    command.args(["-shared", "-fPIC", "-nostdlib", "-s", "-xc", "-"]);
    command.arg(format!("-Wl,-soname,{soname}")).arg("-o").arg(out);
    let start = || format!("cannot start the C compiler {}", compiler.display());
    let mut child = command.stdin(Stdio::piped()).spawn().with_context(start)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(source.as_bytes()).with_context(start)?;
    }
    let status = child.wait().with_context(start)?;
    ensure!(status.success(), "the C compiler could not make {}", out.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDING: &str = r#"
pub unsafe fn cuInit(flags: ::core::ffi::c_uint) -> CUresult {
    #[cfg(not(feature = "dynamic-loading"))]
    {
        extern "C" {
            fn cuInit(flags: ::core::ffi::c_uint) -> CUresult;
        }
        cuInit(flags)
    }
}
impl CUresult {
    fn bitand(self, other: Self) -> Self {
        self
    }
}
extern "C" {
    pub fn cuDeviceGet(device: *mut CUdevice, ordinal: ::core::ffi::c_int) -> CUresult;
    pub fn cuInit(flags: ::core::ffi::c_uint) -> CUresult;
}
"#;

    #[test]
    fn functions_are_those_in_extern_blocks() {
        assert_eq!(externs(BINDING), ["cuDeviceGet", "cuInit"]);
        assert_eq!(externs("fn main() {}"), [""; 0]);
    }

    #[test]
    fn a_stub_says_that_it_is_one() {
        assert_eq!(c_source(&["cuInit"], 34), "int cuInit(void) { return 34; }\n");
    }
}
