//! `cargo xtask cuda-toolkit DIR`: a CUDA toolkit for a machine without a GPU, and the environment to build with it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::cuda_toolkit::{COMPUTE_CAP, Toolkit};

const USAGE: &str = "usage: cargo xtask cuda-toolkit DIR [--compute-cap N] [--python PYTHON]";

/// What was asked for.
#[derive(Debug, PartialEq)]
struct Plan {
    folder: PathBuf,
    compute_cap: OsString,
    /// One that has pip.
    python: OsString,
}

/// Makes the toolkit where there is none, and prints what a shell must `eval`.
pub(crate) fn run(args: &[OsString]) -> Result<ExitCode> {
    let plan = Plan::parse(args)?;
    eprintln!("cuda-toolkit: {}", plan.folder.display());
    let toolkit = Toolkit::in_folder(&plan.folder, &plan.python)?;
    print!("{}", script(toolkit.folder(), &plan.compute_cap));
    Ok(ExitCode::SUCCESS)
}

impl Plan {
    fn parse(args: &[OsString]) -> Result<Self> {
        let (mut folder, mut compute_cap, mut python) = (None, OsString::from(COMPUTE_CAP), OsString::from("python3"));
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || {
                args.next()
                    .cloned()
                    .with_context(|| format!("{USAGE}; {} needs a value", arg.display()))
            };
            match arg.to_str() {
                Some("--compute-cap") => compute_cap = value()?,
                Some("--python") => python = value()?,
                Some(option) if option.starts_with('-') => bail!("{USAGE}; {option:?} is no option of it"),
                _ if folder.is_none() => folder = Some(PathBuf::from(arg)),
                _ => bail!("{USAGE}; one DIR"),
            }
        }
        let is_number = compute_cap.to_str().is_some_and(|text| text.parse::<u32>().is_ok());
        if !is_number {
            bail!(
                "--compute-cap is {:?}, expected a number such as 80 for 8.0",
                compute_cap.display()
            );
        }
        Ok(Self {
            folder: folder.context(USAGE)?,
            compute_cap,
            python,
        })
    }
}

/// The same variables as [`Toolkit::environment`]'s, for a shell.
fn script(folder: &Path, compute_cap: &OsStr) -> String {
    let bin = folder.join("bin");
    format!(
        "export CUDA_HOME={}\nexport CUDA_COMPUTE_CAP={}\nexport PATH={}:\"$PATH\"\n",
        quoted(folder.as_os_str()),
        quoted(compute_cap),
        quoted(bin.as_os_str())
    )
}

/// A word as a shell reads it.
fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Plan> {
        Plan::parse(&args.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_may_stand_on_either_side() {
        let plan = parse(&["--compute-cap", "90", "cuda", "--python", "py"]).unwrap();
        assert_eq!(plan.folder, PathBuf::from("cuda"));
        assert_eq!((plan.compute_cap, plan.python), ("90".into(), "py".into()));
        assert_eq!(parse(&["cuda"]).unwrap().compute_cap, OsString::from(COMPUTE_CAP));
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (args, word) in [
            (&[][..], "DIR"),
            (&["a", "b"], "one DIR"),
            (&["a", "--compute-cap"], "needs a value"),
            (&["a", "--compute-cap", "8.0"], "80 for 8.0"),
            (&["a", "--gpu"], "--gpu"),
        ] {
            let error = parse(args).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_shell_reads_back_what_was_printed() {
        assert_eq!(quoted(OsStr::new("/a b/it's")), r"'/a b/it'\''s'");
        let script = script(Path::new("/opt/cuda"), OsStr::new("90"));
        assert!(script.starts_with("export CUDA_HOME='/opt/cuda'\n"), "{script}");
        assert!(script.ends_with("export PATH='/opt/cuda/bin':\"$PATH\"\n"), "{script}");
    }
}
