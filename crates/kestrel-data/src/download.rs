//! Downloads of files whose sha256, and most often size, are known beforehand.
//!
//! A file stands at its final path only once all that is known is right. Until then it is `.NAME.part` beside it, locked against other
//! processes, and the next try goes on from there. Only https is used off this machine, for redirects too.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::blocking::{Client, Response};
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{StatusCode, Url, redirect};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::file_lock::lock;

/// A file to fetch.
#[derive(Clone, Copy, Debug)]
pub struct Download<'a> {
    /// Where it is, tried in this order.
    pub urls: &'a [&'a str],
    /// Its name in the folder that it is fetched to.
    pub file_name: &'a str,
    /// How many bytes it has, where that is known.
    pub size: Option<u64>,
    /// Its sha256 in lower-case hexadecimal, or the first digits of it: as many as are known.
    pub sha256: &'a str,
}

/// How patient a download is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The longest wait for an answer or for the next bytes.
    pub read_timeout: Duration,
    /// How often each address is tried.
    pub tries: u32,
    /// The wait before the second try; doubled before each further one.
    pub backoff: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(20),
            read_timeout: Duration::from_secs(30),
            tries: 3,
            backoff: Duration::from_secs(1),
        }
    }
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes on the disk.
    pub done: u64,
    /// Bytes of the whole file; 0 where that is not known.
    pub total: u64,
}

/// Why one try failed.
enum Failure {
    /// Another try or another address may do better.
    Passing(String),
    /// The server answers what it will always answer; try the next address.
    Lasting(String),
    /// Nothing will help.
    Fatal(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

impl Download<'_> {
    /// Fetches the file into `folder`, unless it is already there and right; returns its path.
    ///
    /// A file at the final path with another size or sha256 is fetched again. Calls `progress` as bytes arrive.
    ///
    /// # Errors
    /// [`Error::Download`] when every address failed every time, [`Error::ChecksumMismatch`] if the last address had other
    /// bytes, [`Error::InsecureUrl`], [`Error::InvalidParameter`] without a digit of a sha256, [`Error::Busy`] while another
    /// process fetches the same file, [`Error::Io`].
    pub fn fetch(&self, folder: &Path, options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<PathBuf> {
        // Without it any file would pass, also one that is there by chance.
        if self.sha256.is_empty() {
            return Err(Error::InvalidParameter {
                name: "sha256",
                expected: "the first digits, at least, of what the file must have",
                got: "none".into(),
            });
        }
        let path = folder.join(self.file_name);
        let _span = tracing::info_span!("download", path = %path.display()).entered();
        if self.is_whole(&path)? {
            return Ok(path);
        }
        for url in self.urls {
            if !is_allowed(&parse(url)?) {
                return Err(Error::InsecureUrl { url: (*url).to_owned() });
            }
        }
        let part = folder.join(format!(".{}.part", self.file_name));
        let mut file = lock(&part)?;
        // Another process may have finished it before the lock was ours.
        if self.is_whole(&path)? {
            match fs::remove_file(&part) {
                // What was opened and locked above is what the other process has since renamed.
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", &part)(e)),
                _ => return Ok(path),
            }
        }
        self.fetch_part(&mut file, &part, options, progress)?;
        fs::rename(&part, &path).map_err(Error::io("rename", &part))?;
        if cfg!(unix) {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(Error::io("sync", folder))?;
        }
        Ok(path)
    }

    /// Whether `path` is there, with the right size and sha256.
    fn is_whole(&self, path: &Path) -> Result<bool> {
        match fs::metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("read", path)(e)),
            Ok(metadata) if self.size.is_some_and(|size| metadata.len() != size) => Ok(false),
            Ok(_) => {
                let mut file = File::open(path).map_err(Error::io("open", path))?;
                Ok(sha256(&mut file)
                    .map_err(Error::io("read", path))?
                    .starts_with(self.sha256))
            }
        }
    }

    /// Fills `file`, trying each address in turn, until it is right.
    fn fetch_part(
        &self,
        file: &mut File,
        part: &Path,
        options: &Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let client = client(options)?;
        let mut last = Error::Download {
            url: "nothing".into(),
            reason: "no address is known".into(),
        };
        for url in self.urls {
            let mut pause = options.backoff;
            for attempt in 1..=options.tries.max(1) {
                if attempt > 1 {
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                let fetched = self.fetch_once(&client, url, file, part, progress);
                let (reason, lasting) = match fetched.and_then(|()| self.verify(file, part)) {
                    Ok(()) => return Ok(()),
                    Err(Failure::Fatal(Error::ChecksumMismatch { expected, got, .. })) => {
                        tracing::debug!(url, attempt, got, "the file has the wrong contents");
                        last = Error::ChecksumMismatch {
                            path: (*url).into(),
                            expected,
                            got,
                        };
                        continue;
                    }
                    Err(Failure::Fatal(error)) => return Err(error),
                    Err(Failure::Passing(reason)) => (reason, false),
                    Err(Failure::Lasting(reason)) => (reason, true),
                };
                tracing::debug!(url, attempt, reason, "a try to download failed");
                last = Error::Download {
                    url: (*url).to_owned(),
                    reason,
                };
                if lasting {
                    break;
                }
            }
        }
        Err(last)
    }

    /// One request; goes on where the part file ends.
    fn fetch_once(
        &self,
        client: &Client,
        url: &str,
        file: &mut File,
        part: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> std::result::Result<(), Failure> {
        let write_failed = |e| Failure::Fatal(Error::io("write", part)(e));
        let mut done = file.seek(SeekFrom::End(0)).map_err(write_failed)?;
        let size = self.size.unwrap_or(u64::MAX);
        let mut total = self.size.unwrap_or(0);
        if done > size {
            (file.set_len(0).and_then(|()| file.rewind())).map_err(write_failed)?;
            done = 0;
        }
        progress(Progress { done, total });
        if done == size {
            return Ok(());
        }
        let mut request = client.get(url);
        if done > 0 {
            request = request.header(RANGE, format!("bytes={done}-"));
        }
        let mut response = request.send().map_err(sending_failed)?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(done) => {}
            // The server does not know ranges, or sends another than was asked for: start again.
            StatusCode::OK if done == 0 => {}
            StatusCode::OK => {
                (file.set_len(0).and_then(|()| file.rewind())).map_err(write_failed)?;
                done = 0;
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                (file.set_len(0).and_then(|()| file.rewind())).map_err(write_failed)?;
                return Err(Failure::Passing("the server sent another part of the file".into()));
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(Failure::Passing(format!("the server answered {status}")));
            }
            status => return Err(Failure::Lasting(format!("the server answered {status}"))),
        }
        if self.size.is_none() {
            total = response.content_length().map_or(0, |left| done + left);
        }
        let of = |done: u64| match total {
            0 => format!("{done} bytes"),
            total => format!("{done} of {total} bytes"),
        };
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = match response.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Failure::Passing(format!("after {}: {e}", of(done)))),
            };
            if done + count as u64 > size {
                (file.set_len(0).and_then(|()| file.rewind())).map_err(write_failed)?;
                return Err(Failure::Lasting(format!("it has more than the expected {size} bytes")));
            }
            file.write_all(&buffer[..count]).map_err(write_failed)?;
            done += count as u64;
            progress(Progress { done, total });
        }
        if done < total {
            return Err(Failure::Passing(format!("it ended after {}", of(done))));
        }
        Ok(())
    }

    /// Compares the part file's sha256 and syncs it; a wrong file is emptied.
    fn verify(&self, file: &mut File, part: &Path) -> std::result::Result<(), Failure> {
        file.rewind().map_err(Error::io("read", part))?;
        let got = sha256(file).map_err(Error::io("read", part))?;
        if !got.starts_with(self.sha256) {
            (file.set_len(0).and_then(|()| file.rewind())).map_err(Error::io("write", part))?;
            let expected = self.sha256.to_owned();
            return Err(Failure::Fatal(Error::ChecksumMismatch {
                path: part.to_path_buf(),
                expected,
                got,
            }));
        }
        file.sync_all().map_err(Error::io("sync", part))?;
        Ok(())
    }
}

fn client(options: &Options) -> Result<Client> {
    let policy = redirect::Policy::custom(|attempt| {
        if attempt.previous().len() >= 10 {
            attempt.error("more than 10 redirects")
        } else if is_allowed(attempt.url()) {
            attempt.follow()
        } else {
            let url = attempt.url().to_string();
            attempt.error(Insecure(url))
        }
    });
    // Of the blocking client, this is the longest wait for an answer, and for each read of its body.
    let builder = Client::builder()
        .connect_timeout(options.connect_timeout)
        .timeout(options.read_timeout);
    let failed = |e: reqwest::Error| Error::Download {
        url: "anything".into(),
        reason: chain(&e),
    };
    builder.redirect(policy).build().map_err(failed)
}

/// A redirect that is refused.
#[derive(Debug, thiserror::Error)]
#[error("redirected to {0}, which is neither https nor on this machine")]
struct Insecure(String);

fn sending_failed(error: reqwest::Error) -> Failure {
    let mut source: Option<&dyn std::error::Error> = Some(&error);
    while let Some(cause) = source {
        if let Some(Insecure(url)) = cause.downcast_ref() {
            return Failure::Fatal(Error::InsecureUrl { url: url.clone() });
        }
        source = cause.source();
    }
    // The address stands in the error that this becomes part of.
    Failure::Passing(chain(&error.without_url()))
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn parse(url: &str) -> Result<Url> {
    let invalid = |_| Error::InvalidParameter {
        name: "address",
        expected: "a URL",
        got: url.to_owned(),
    };
    Url::parse(url).map_err(invalid)
}

/// Whether a URL is https, or on this machine.
fn is_allowed(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<std::net::IpAddr>();
    let loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    url.scheme() == "https" || (url.scheme() == "http" && loopback)
}

/// Where the range of a partial answer starts.
fn range_start(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

fn sha256(reader: &mut impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => hash.update(&buffer[..count]),
        }
    }
}
