//! `--pretrained imagenet` whole, from servers on loopback.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use kestrel_data::Fingerprint;

use crate::pictures::{command, stderr, stdout};
use crate::server::{Answer, Server, answer, ok};
use crate::transfer;

/// A folder of pictures, the file that the servers have, and a list of mirrors.
struct Case {
    dir: tempfile::TempDir,
    body: Vec<u8>,
}

impl Case {
    fn new() -> Self {
        let dir = transfer::folder();
        let file = dir.path().join("resnet18.pth");
        let body = fs::read(&file).unwrap();
        fs::remove_file(file).unwrap();
        Self { dir, body }
    }

    /// Names these addresses as the mirrors of ResNet-18.
    fn mirrors(&self, urls: &[&str]) {
        let (size, sha256) = (self.body.len(), Fingerprint::of(&self.body));
        let entry = |(i, url): (usize, &&str)| {
            format!(
                "[[resnet18]]\nurl = \"{url}\"\nfile-name = \"mirror{i}.pth\"\nsize = {size}\nsha256 = \"{sha256}\"\n"
            )
        };
        let text: String = urls.iter().enumerate().map(entry).collect();
        fs::write(self.path("mirrors.toml"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self) -> Output {
        let args = "finetune-resnet --pretrained imagenet --data pictures --image-size 32 --batch-size 4 --epochs 1 \
                    --num-images 0 --device cpu";
        let args: Vec<&str> = args.split(' ').collect();
        let mut command = command(self.dir.path(), &args);
        command
            .env("KESTREL_PRETRAINED_MIRRORS", "mirrors.toml")
            .output()
            .unwrap()
    }

    /// Runs, which must succeed with the weights of this file.
    fn succeeds(&self, file: &str) {
        let output = self.run();
        let log = stderr(&output);
        assert!(output.status.success(), "{log}");
        let path = Path::new("data/weights").join(file);
        let line = format!("Weights: {}: loaded 100 tensors; fc.bias is new", path.display());
        assert!(log.contains(&line), "{line:?} in\n{log}");
        assert!(fs::read(self.dir.path().join(path)).unwrap() == self.body);
        assert!(stdout(&output).starts_with("Accuracy on the 4 test images: "));
    }

    /// A part of the file, as an answer to a request for the rest.
    fn rest(&self, from: usize) -> Answer {
        let whole = self.body.len();
        let range = format!("Content-Range: bytes {from}-{}/{whole}\r\n", whole - 1);
        answer("206 Partial Content", &range, whole - from, &self.body[from..])
    }
}

#[test]
fn weights_are_fetched_once_and_then_kept() {
    let case = Case::new();
    let server = Server::start(vec![ok(&case.body)]);
    case.mirrors(&[&server.url]);
    case.succeeds("mirror0.pth");
    assert_eq!(server.ranges(), [None]);
    // The server is gone.
    case.succeeds("mirror0.pth");
}

#[test]
fn a_download_that_is_cut_off_goes_on_where_it_was() {
    let case = Case::new();
    let part = case.body.len() / 3;
    let cut = answer("200 OK", "", case.body.len(), &case.body[..part]);
    let server = Server::start(vec![cut, case.rest(part)]);
    case.mirrors(&[&server.url]);
    case.succeeds("mirror0.pth");
    assert_eq!(server.ranges(), [None, Some(format!("bytes={part}-"))]);
}

#[test]
fn wrong_bytes_lead_to_the_next_mirror() {
    let case = Case::new();
    let mut wrong = case.body.clone();
    wrong[1_000_000] ^= 1;
    let bad = Server::start(vec![ok(&wrong); 3]);
    let good = Server::start(vec![ok(&case.body)]);
    case.mirrors(&[&bad.url, &good.url]);
    case.succeeds("mirror1.pth");
    assert_eq!((bad.ranges().len(), good.ranges().len()), (3, 1));
    assert!(!case.path("data/weights/mirror0.pth").exists());
}

#[test]
fn where_no_mirror_delivers_the_error_says_what_to_do() {
    let case = Case::new();
    let missing = || Server::start(vec![answer("404 Not Found", "", 0, b"")]);
    let servers = [missing(), missing()];
    case.mirrors(&[&servers[0].url, &servers[1].url]);
    let output = case.run();
    let log = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{log}");
    let error = log.lines().find(|line| line.starts_with("error: ")).unwrap();
    for word in [
        "the weights cannot be had",
        "name the file with --weights",
        &servers[0].url,
        &servers[1].url,
        "404",
    ] {
        assert!(error.contains(word), "{word:?} in {error}");
    }
    assert!(!case.path("runs").exists(), "a refused run leaves no folder");
    // Plain http is for this machine alone, and a list that is wrong is told by its name.
    case.mirrors(&["http://example.com/resnet18.pth"]);
    let log = stderr(&case.run());
    assert!(
        log.contains("http://example.com/resnet18.pth") && log.contains("https"),
        "{log}"
    );
    fs::write(case.path("mirrors.toml"), "[[resnet19]]\n").unwrap();
    let log = stderr(&case.run());
    assert!(log.contains("KESTREL_PRETRAINED_MIRRORS names mirrors.toml"), "{log}");
}
