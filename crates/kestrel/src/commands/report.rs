//! `kestrel report`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Error, Result};
use kestrel_train::report::{write_comparison, write_report};

use crate::cli::ReportArgs;
use crate::exit;

/// The page of several runs, beside their folders.
const COMPARISON_FILE: &str = "comparison.html";

/// Runs the command.
pub(crate) fn run(args: &ReportArgs) -> Result<()> {
    // `runs/*` names the page of an earlier comparison too.
    let folders: Vec<PathBuf> = args.runs.iter().filter(|run| !run.is_file()).cloned().collect();
    let page = match (folders.as_slice(), &args.out) {
        ([], _) => return wrong("no folder of a run is named; name some, such as runs/NAME".to_owned()),
        ([run], None) => write_report(run)?,
        ([run], Some(_)) => {
            return wrong(format!(
                "--out is for the page of several runs; the report of {} goes into its folder",
                run.display()
            ));
        }
        (runs, out) => {
            let page = out.clone().unwrap_or_else(|| beside(&runs[0]));
            if is_no_page(&page) {
                return wrong(format!(
                    "{} is there and is no page; name another with --out",
                    page.display()
                ));
            }
            write_comparison(runs, &page)?;
            page
        }
    };
    writeln!(io::stdout().lock(), "{}", page.display())?;
    Ok(())
}

/// An error of arguments.
fn wrong(message: String) -> Result<()> {
    Err(exit::usage(Error::msg(message)))
}

/// Whether a file is there that is something else than an HTML page.
fn is_no_page(path: &Path) -> bool {
    const START: &[u8] = b"<!doctype html";
    let mut start = [0; START.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    path.is_file() && !(read.is_ok() && start.eq_ignore_ascii_case(START))
}

fn beside(run: &Path) -> PathBuf {
    run.join("..").canonicalize().map_or_else(
        |_| PathBuf::from(COMPARISON_FILE),
        |folder| {
            // As short as it was given, where that is possible.
            let given = run
                .parent()
                .filter(|parent| parent.canonicalize().is_ok_and(|p| p == folder));
            given.map_or(folder.clone(), Path::to_owned).join(COMPARISON_FILE)
        },
    )
}
