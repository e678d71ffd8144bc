//! `kestrel watch`: serves a run's report to this machine's browser while the run goes on.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use hyper::Method;
use kestrel_train::report::report_page;

use crate::cli::WatchArgs;
use crate::http::{Answer, Limits, Request, Server};

const SCRIPT: &str = include_str!("watch.js");
/// A browser sends no bodies here.
const LIMITS: Limits = Limits {
    max_body: 0,
    timeout: Duration::from_secs(10),
};

/// Runs the command, until it is stopped.
pub(crate) fn run(args: &WatchArgs) -> Result<()> {
    // A folder that is no run's is told at once and not in the browser.
    report_page(&args.run)?;
    let server = Server::bind(IpAddr::V4(Ipv4Addr::LOCALHOST), args.port)?;
    server.announce()?;
    tracing::info!("Open it in a browser; the page follows the run. Stop with Ctrl-C.");
    let folder: Arc<Path> = args.run.clone().into();
    server.run(LIMITS, move |request| answer(request, Arc::clone(&folder)))
}

async fn answer(request: Request, folder: Arc<Path>) -> Answer {
    let path = request.path().to_owned();
    if !matches!(path.as_str(), "/" | "/state") {
        return request.refuse(Answer::not_found("there is only /")).await;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return request.refuse(Answer::method_not_allowed("GET")).await;
    }
    let work = move || match path.as_str() {
        "/" => page(&folder),
        _ => Answer::text(state(&folder)),
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(error) => Answer::fault(&error.into()),
    }
}

/// The report, and the script that follows it.
fn page(folder: &Path) -> Answer {
    match report_page(folder) {
        Ok(page) => {
            let script = format!("<script>\n{SCRIPT}</script>\n</body>");
            Answer::html(page.replacen("</body>", &script, 1))
        }
        Err(error) => Answer::fault(&error.into()),
    }
}

/// A text that changes whenever a file of the folder does.
fn state(folder: &Path) -> String {
    let mut files: Vec<(String, u64, u128)> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let metadata = entry.metadata().ok()?;
            let told = [".json", ".jsonl", ".toml"].iter().any(|end| name.ends_with(end));
            let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            told.then_some((name, metadata.len(), modified.as_nanos()))
        })
        .collect();
    files.sort();
    files.iter().fold(String::new(), |mut text, (name, length, modified)| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name} {length} {modified}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_changes_with_the_logs() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("metrics.jsonl"), "{}").unwrap();
        let before = state(dir.path());
        assert_eq!(before, state(dir.path()));
        std::fs::write(dir.path().join("best.safetensors"), "x").unwrap();
        assert_eq!(before, state(dir.path()));
        std::fs::write(dir.path().join("metrics.jsonl"), "{}{}").unwrap();
        assert_ne!(before, state(dir.path()));
    }
}
