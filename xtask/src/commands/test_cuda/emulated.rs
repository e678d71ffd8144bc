//! The tests on the emulated GPU of `xtask/emulated-gpu`: libraries by the names of NVIDIA's that run kernels on the CPU, and end a
//! program that does what a GPU forbids.
//!
//! They show that launches, addresses, recordings and numbers are right; of speed they say nothing. Not part of the CI, where
//! building for CUDA takes too long.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Plan;
use super::executable::{self, Executable};
use crate::cuda_toolkit::{COMPUTE_CAP, Toolkit};
use crate::{cargo, process};

/// Makes the libraries, and code of the host from kernels.
const PYTHON: &str = "python3";

/// The clock stands while the device works: what is recorded only where launches take longest is recorded, as on a fast device.
const CLOCK: (&str, &str) = ("EMULATED_GPU_CLOCK", "host");

/// A way for the device to behave that a GPU's users must be ready for.
struct Mode {
    name: &'static str,
    environment: &'static [(&'static str, &'static str)],
}

const MODES: &[Mode] = &[
    Mode {
        name: "work waits until it is waited for",
        environment: &[
            ("EMULATED_GPU_STREAMS", "lazy"),
            ("EMULATED_GPU_BLOCKS", "forward"),
            ("EMULATED_GPU_THREADS", "forward"),
            ("EMULATED_GPU_GUARD", "after"),
            ("EMULATED_GPU_MULTIPROCESSORS", "132"),
        ],
    },
    Mode {
        name: "work runs at once, blocks and threads shuffled, on a small device",
        environment: &[
            ("EMULATED_GPU_STREAMS", "eager"),
            ("EMULATED_GPU_BLOCKS", "shuffled"),
            ("EMULATED_GPU_THREADS", "shuffled"),
            ("EMULATED_GPU_GUARD", "before"),
            ("EMULATED_GPU_MULTIPROCESSORS", "3"),
        ],
    },
    Mode {
        name: "work waits, blocks and threads reversed",
        environment: &[
            ("EMULATED_GPU_STREAMS", "lazy"),
            ("EMULATED_GPU_BLOCKS", "reversed"),
            ("EMULATED_GPU_THREADS", "reversed"),
            ("EMULATED_GPU_GUARD", "after"),
            ("EMULATED_GPU_MULTIPROCESSORS", "132"),
        ],
    },
];

/// Builds the tests by `command`, a `cargo test`, and runs those that match in each of the [`MODES`].
pub(super) fn run(mut command: Command, plan: &Plan) -> Result<ExitCode> {
    check_tools()?;
    let toolkit = toolkit(&mut command)?;
    // Of its own, so that the toolkit's stubs are in no build that is meant for a GPU.
    command.env("CARGO_TARGET_DIR", cargo::target().join("cuda-tests"));
    let messages = match executable::build(command)? {
        Ok(messages) => messages,
        Err(failed) => return Ok(failed),
    };
    let libraries = cargo::target().join("emulated-gpu");
    build_libraries(&toolkit, &messages, &libraries)?;
    let folders = before(&libraries, env::var_os("LD_LIBRARY_PATH"))?;
    check_libraries(&libraries, &folders)?;
    let mut executables = Vec::new();
    for executable in executable::all(&messages) {
        match executable.matching(&folders, &plan.filters) {
            Some(0) => {}
            Some(_) => executables.push(executable),
            None => bail!(
                "{} does not start with the libraries in {}",
                executable.path.display(),
                libraries.display()
            ),
        }
    }
    ensure!(
        !executables.is_empty(),
        "no test of these crates matches {:?}",
        plan.filters
    );
    run_all(&executables, &folders, &plan.filters)
}

/// Runs every executable in every mode, also after one that fails.
fn run_all(executables: &[Executable], folders: &OsStr, filters: &[OsString]) -> Result<ExitCode> {
    let mut failed = Vec::new();
    for mode in MODES {
        for executable in executables {
            let (name, _) = executable.names()?;
            eprintln!("test-cuda: {name}: {}", mode.name);
            let mut command = test(executable, filters);
            command
                .envs(mode.environment.iter().copied().chain([CLOCK]))
                .env("LD_LIBRARY_PATH", folders);
            let status = command
                .status()
                .with_context(|| format!("cannot start {}", executable.path.display()))?;
            if !status.success() {
                failed.push(format!("{name} ({}: {status})", mode.name));
            }
        }
    }
    if failed.is_empty() {
        eprintln!("test-cuda: all passed in {} modes of the emulated GPU", MODES.len());
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("test-cuda: failed: {}", failed.join("; "));
    Ok(ExitCode::FAILURE)
}

/// An executable's tests, as cargo runs them.
fn test(executable: &Executable, filters: &[OsString]) -> Command {
    let mut command = Command::new(&executable.path);
    // One at a time: the device does one thing at a time anyhow, and a fault, which ends the program, is the last test's.
    command.args(["--include-ignored", "--test-threads=1"]).args(filters);
    command
        .current_dir(&executable.manifest_dir)
        .env("CARGO_MANIFEST_DIR", &executable.manifest_dir)
        .env("KESTREL_REQUIRE_CUDA", "1")
        .stdin(Stdio::null());
    command
}

/// One sentence about what is missing.
fn check_tools() -> Result<()> {
    ensure!(
        cfg!(all(target_arch = "x86_64", target_os = "linux")),
        "the emulated GPU is for x86-64 Linux alone"
    );
    #[cfg(target_arch = "x86_64")]
    ensure!(
        std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c"),
        "the emulated GPU needs a processor with AVX2, FMA and F16C"
    );
    // A compiler with options is one for build.py to split up.
    let compiler = env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
    for (tool, package) in [
        (
            compiler.split_whitespace().next().unwrap_or("g++"),
            "a C++ compiler such as g++, or set CXX to one",
        ),
        (PYTHON, "Python 3"),
        ("nm", "binutils"),
    ] {
        let mut probe = Command::new(tool);
        probe.arg("--version");
        process::require(
            probe,
            tool,
            &format!("the emulated GPU is built with it; install {package}"),
        )?;
    }
    Ok(())
}

/// The toolkit of the environment, or one that is made for `command`.
fn toolkit(command: &mut Command) -> Result<PathBuf> {
    let compute_cap = env::var_os("CUDA_COMPUTE_CAP").unwrap_or_else(|| COMPUTE_CAP.into());
    if let Some(home) = env::var_os("CUDA_HOME") {
        command.env("CUDA_COMPUTE_CAP", compute_cap);
        return Ok(home.into());
    }
    let folder = cargo::target().join("cuda-toolkit");
    let toolkit = Toolkit::in_folder(&folder, OsStr::new(PYTHON))
        .context("no CUDA_HOME is set, and no toolkit is to be had from pip")?;
    command.envs(toolkit.environment(&compute_cap)?);
    Ok(toolkit.folder().to_path_buf())
}

/// Builds what is not there or has changed.
fn build_libraries(toolkit: &Path, messages: &[Value], out: &Path) -> Result<()> {
    let mut build = Command::new(PYTHON);
    build.arg(cargo::root().join("xtask/emulated-gpu/build.py"));
    build.arg("--toolkit").arg(toolkit).arg("--out").arg(out);
    for (package, sources) in [("candle_kernels", "src"), ("kestrel_kernels", "src/cuda/kernels")] {
        let (manifest_dir, ptx) =
            folders(messages, package).with_context(|| format!("cargo built no {package} for CUDA"))?;
        build.arg("--kernels").arg(manifest_dir.join(sources)).arg(ptx);
    }
    let status = build.stdin(Stdio::null()).status().context("cannot start python3")?;
    ensure!(status.success(), "the emulated GPU could not be built");
    Ok(())
}

/// Runs the program that makes faults on purpose: what passes on libraries that find none proves nothing.
fn check_libraries(libraries: &Path, folders: &OsStr) -> Result<()> {
    let program = libraries.join("faults");
    let mut check = Command::new(&program);
    let status = check.env("LD_LIBRARY_PATH", folders).stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(
        status.success(),
        "the emulated GPU does not find the faults named above"
    );
    Ok(())
}

/// The folder of a library's package, and that of what its build script made.
fn folders(messages: &[Value], library: &str) -> Option<(PathBuf, PathBuf)> {
    let of = |reason: &'static str| messages.iter().filter(move |message| message["reason"] == reason);
    let artifact = of("compiler-artifact").find(|message| {
        // Not the build script, which has a name of its own.
        message["target"]["name"] == library && message["profile"]["test"] == false
    })?;
    let script = of("build-script-executed").find(|message| message["package_id"] == artifact["package_id"])?;
    Some((executable::manifest_dir(artifact)?, script["out_dir"].as_str()?.into()))
}

/// A list of folders with one before what is there.
fn before(folder: &Path, list: Option<OsString>) -> Result<OsString> {
    let rest = list.unwrap_or_default();
    // An empty one would be the working directory.
    let rest = env::split_paths(&rest).filter(|folder| !folder.as_os_str().is_empty());
    env::join_paths([folder.to_path_buf()].into_iter().chain(rest))
        .context("cannot put the emulated GPU on the library path")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_found_among_cargos_messages() {
        let output = [
            r#"{"reason":"build-script-executed","package_id":"a#1","out_dir":"/t/a/out"}"#,
            r#"{"reason":"build-script-executed","package_id":"k#1","out_dir":"/t/k/out"}"#,
            r#"{"reason":"compiler-artifact","package_id":"k#1","target":{"name":"k_k"},"profile":{"test":true},"manifest_path":"/w/x/Cargo.toml"}"#,
            r#"{"reason":"compiler-artifact","package_id":"k#1","target":{"name":"k_k"},"profile":{"test":false},"manifest_path":"/w/k/Cargo.toml"}"#,
        ];
        let messages = executable::messages(&output.join("\n")).unwrap();
        assert_eq!(folders(&messages, "k_k"), Some(("/w/k".into(), "/t/k/out".into())));
        assert_eq!(folders(&messages, "none"), None);
    }

    #[test]
    fn modes_differ_and_set_the_same() {
        let names = |mode: &Mode| mode.environment.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        for mode in MODES {
            assert_eq!(names(mode), names(&MODES[0]), "{}", mode.name);
        }
        assert_ne!(MODES[0].environment, MODES[2].environment);
    }

    #[test]
    fn the_emulated_libraries_come_first() {
        assert_eq!(before(Path::new("/e"), None).unwrap(), "/e");
        assert_eq!(before(Path::new("/e"), Some("/a:/b".into())).unwrap(), "/e:/a:/b");
    }
}
