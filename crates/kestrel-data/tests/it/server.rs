//! A server on loopback that answers each connection by a script.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

/// What the server does with one connection.
#[derive(Clone)]
pub(crate) enum Answer {
    /// These bytes, whole, then closes.
    Bytes(Vec<u8>),
    /// These bytes, then silence until the client is gone.
    Stall(Vec<u8>),
}

pub(crate) fn answer(status: &str, headers: &str, announced: usize, body: &[u8]) -> Answer {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {announced}\r\nConnection: close\r\n{headers}\r\n");
    Answer::Bytes([head.as_bytes(), body].concat())
}

pub(crate) fn ok(body: &[u8]) -> Answer {
    answer("200 OK", "", body.len(), body)
}

/// A server that gives each connection its answer, and says which `Range` it was asked for.
pub(crate) struct Server {
    pub(crate) url: String,
    ranges: Receiver<Option<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let (sender, ranges) = channel();
        let thread = std::thread::spawn(move || {
            for answer in answers {
                let (stream, _) = listener.accept().unwrap();
                sender.send(serve(stream, answer)).unwrap();
            }
        });
        Self {
            url,
            ranges,
            thread: Some(thread),
        }
    }

    /// The ranges asked for, once all answers are given.
    pub(crate) fn ranges(mut self) -> Vec<Option<String>> {
        self.thread.take().unwrap().join().unwrap();
        self.ranges.iter().collect()
    }
}

fn serve(mut stream: TcpStream, answer: Answer) -> Option<String> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut range = None;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 || line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("range")
        {
            range = Some(value.trim().to_owned());
        }
    }
    // The client may hang up early: that is its right.
    match answer {
        Answer::Bytes(bytes) => {
            let _ = stream.write_all(&bytes);
        }
        Answer::Stall(bytes) => {
            let _ = stream.write_all(&bytes);
            let _ = reader.read_line(&mut String::new());
        }
    }
    range
}
