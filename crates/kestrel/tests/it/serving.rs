//! A command that serves, and a client that says what it likes, byte by byte.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::pictures::command;

/// A server under way, killed in the end.
pub(crate) struct Serving {
    child: Child,
    pub(crate) address: String,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Serving {
    /// Runs `kestrel` with these arguments until it has said where it listens.
    pub(crate) fn start(folder: &Path, args: &[&str]) -> Self {
        let mut child = command(folder, args)
            .args(["--port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").unwrap().trim_end_matches('/');
        Self {
            child,
            address: address.to_owned(),
        }
    }

    /// A connection that hangs rather than a test.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// The answer to one request, given as its first line, further header lines, and its body.
    pub(crate) fn ask(&self, line: &str, headers: &str, body: &[u8]) -> Response {
        let mut stream = self.connect();
        stream.write_all(&self.head(line, headers, body.len())).unwrap();
        // A server that refuses a body may close before it has read all of it.
        let _ = stream.write_all(body);
        Response::read(&mut BufReader::new(stream)).expect("an answer")
    }

    /// The head of a request with a body of this length.
    pub(crate) fn head(&self, line: &str, headers: &str, length: usize) -> Vec<u8> {
        let address = &self.address;
        format!("{line} HTTP/1.1\r\nHost: {address}\r\n{headers}Content-Length: {length}\r\n\r\n").into_bytes()
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.ask(&format!("GET {path}"), "", b"")
    }

    /// Posts an image to `/predict` with a query.
    pub(crate) fn predict(&self, query: &str, image: &[u8]) -> Response {
        self.ask(&format!("POST /predict{query}"), "Content-Type: image/png\r\n", image)
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = std::process::Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Response {
    /// The next answer on a connection; none where it is closed before.
    pub(crate) fn read(stream: &mut impl BufRead) -> Option<Self> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut this = Self {
            status,
            head,
            body: Vec::new(),
        };
        let length: usize = this
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        this.body.resize(length, 0);
        stream.read_exact(&mut this.body).ok()?;
        Some(this)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The sentence that says why a request was refused.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}
