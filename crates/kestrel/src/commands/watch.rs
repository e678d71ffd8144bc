//! `kestrel watch`: serves a run's report to this machine's browser while the run goes on.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use kestrel_train::report::report_page;

use crate::cli::WatchArgs;

const SCRIPT: &str = include_str!("watch.js");
/// What a browser may take to send its request or to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a request's head at most.
const MAX_HEAD: u64 = 16 * 1024;
/// Connections at once; a browser opens six.
const MAX_CONNECTIONS: usize = 32;

/// Runs the command, until it is stopped.
pub(crate) fn run(args: &WatchArgs) -> Result<()> {
    // A folder that is no run's is told at once and not in the browser.
    report_page(&args.run)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port))
        .with_context(|| format!("cannot listen on port {}; choose another with --port", args.port))?;
    let address = listener.local_addr().context("the port")?;
    let mut out = io::stdout().lock();
    writeln!(out, "http://{address}/")?;
    out.flush()?;
    drop(out);
    tracing::info!("Open it in a browser; the page follows the run. Stop with Ctrl-C.");
    let folder: Arc<Path> = args.run.clone().into();
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        // A connection that did not come about is the browser's matter.
        let Ok(stream) = stream else { continue };
        if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (folder, open) = (Arc::clone(&folder), Arc::clone(&open));
        std::thread::spawn(move || {
            if let Err(error) = answer(&stream, &folder, address) {
                tracing::debug!("{error}");
            }
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
    Ok(())
}

/// Answers one request, and closes.
fn answer(stream: &TcpStream, folder: &Path, address: SocketAddr) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = BufReader::new(stream.take(MAX_HEAD));
    let mut first = String::new();
    head.read_line(&mut first)?;
    let mut host = None;
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("host")
        {
            host = Some(value.trim().to_owned());
        }
    }
    let (status, kind, body) = respond(&first, host.as_deref(), folder, address);
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'none'; img-src data:; style-src \
         'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    if !first.starts_with("HEAD ") {
        stream.write_all(body.as_bytes())?;
    }
    stream.flush()
}

/// Status, type and body of the answer to a request's first line.
fn respond(
    first: &str,
    host: Option<&str>,
    folder: &Path,
    address: SocketAddr,
) -> (&'static str, &'static str, String) {
    let plain = |status, text: &str| (status, "text/plain", text.to_owned());
    // Another site's name that leads to this machine must not read a run.
    let port = address.port();
    let ours = [address.to_string(), format!("localhost:{port}")];
    if !host.is_some_and(|host| ours.iter().any(|name| name == host)) {
        return plain("403 Forbidden", "this page is for this machine alone");
    }
    let mut words = first.split_whitespace();
    if !matches!(words.next(), Some("GET" | "HEAD")) {
        return plain("405 Method Not Allowed", "only GET is answered");
    }
    match words.next() {
        Some("/") => match report_page(folder) {
            Ok(page) => {
                let script = format!("<script>\n{SCRIPT}</script>\n</body>");
                ("200 OK", "text/html", page.replacen("</body>", &script, 1))
            }
            Err(error) => plain("500 Internal Server Error", &error.to_string()),
        },
        Some("/state") => plain("200 OK", &state(folder)),
        _ => plain("404 Not Found", "there is only /"),
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
    fn only_this_machine_reads_only_the_report() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), "lr = 0.1").unwrap();
        let address: SocketAddr = "127.0.0.1:7878".parse().unwrap();
        let get = |first: &str, host| respond(first, host, dir.path(), address);
        let here = Some("localhost:7878");
        let (status, kind, page) = get("GET / HTTP/1.1\r\n", here);
        assert_eq!((status, kind), ("200 OK", "text/html"));
        assert!(page.contains("/state") && page.ends_with("</html>\n"));
        for (first, host, status) in [
            ("GET / HTTP/1.1", Some("evil.example:7878"), "403 Forbidden"),
            ("GET / HTTP/1.1", None, "403 Forbidden"),
            ("POST / HTTP/1.1", here, "405 Method Not Allowed"),
            ("", here, "405 Method Not Allowed"),
            ("GET /../etc/passwd HTTP/1.1", here, "404 Not Found"),
        ] {
            assert_eq!(get(first, host).0, status, "{first} {host:?}");
        }
    }

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
