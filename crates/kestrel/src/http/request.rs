//! A request, whose body is read when somebody asks for it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{Answer, Limits};

/// How much of a refused body is read and dropped, and how long: a client that is still sending when its connection is closed
/// may never see why it was refused.
const DISCARD: (usize, Duration) = (64 << 20, Duration::from_secs(2));

/// Bodies of the largest size that may be in memory together.
const BODIES: usize = 4;
/// Bytes of the unit in which they are counted.
const UNIT: usize = 1 << 10;

/// The memory that bodies may take, those that are still coming among them: slow clients hold what they have sent, no more.
#[derive(Clone)]
pub(super) struct BodyMemory(Arc<Semaphore>);

impl BodyMemory {
    pub(super) fn new(limits: Limits) -> Self {
        Self(Arc::new(Semaphore::new(BODIES * limits.max_body.div_ceil(UNIT))))
    }
}

/// A body, and the memory that it is counted in.
pub(crate) struct Body {
    bytes: Vec<u8>,
    _memory: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why a body was not read to its end.
enum Cut {
    TooLarge,
    NoMemory,
    Broken,
}

/// A request whose head has been read.
pub(crate) struct Request {
    head: Parts,
    body: Incoming,
    limits: Limits,
    memory: BodyMemory,
}

impl Request {
    pub(super) fn new(request: hyper::Request<Incoming>, limits: Limits, memory: BodyMemory) -> Self {
        let (head, body) = request.into_parts();
        Self {
            head,
            body,
            limits,
            memory,
        }
    }

    /// GET, POST, ...
    pub(crate) fn method(&self) -> &Method {
        &self.head.method
    }

    /// What stands between the host and the question mark.
    pub(crate) fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// The names and values after the question mark.
    pub(crate) fn query(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        form_urlencoded::parse(self.head.uri.query().unwrap_or_default().as_bytes())
    }

    /// The type of the body, in lower case, without parameters.
    pub(crate) fn content_type(&self) -> Option<String> {
        let value = self.head.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let kind = value.split(';').next().unwrap_or_default();
        Some(kind.trim().to_ascii_lowercase())
    }

    /// The body, read within the limits, or why it is refused: 413 where it is too large, 408 where it does not come in time,
    /// 400 where it is cut off, 503 where others take all memory for bodies.
    pub(crate) async fn body(self) -> Result<Body, Answer> {
        let max = self.limits.max_body;
        let too_large = || {
            Answer::refusal(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is larger than {} MiB, the limit", max >> 20),
            )
        };
        let announced = self.body.size_hint().exact();
        if announced.is_some_and(|length| length > max as u64) {
            return Err(self.refuse(too_large()).await);
        }
        let mut body = self.body;
        let whole = collect(&mut body, max, &self.memory);
        match timeout(self.limits.timeout, whole).await {
            Ok(Ok(whole)) => Ok(whole),
            Ok(Err(Cut::TooLarge)) => {
                discard(&mut body).await;
                Err(too_large())
            }
            Ok(Err(Cut::NoMemory)) => {
                discard(&mut body).await;
                Err(Answer::busy(
                    "as many bytes as there is room for are on their way; try again in a second",
                ))
            }
            Ok(Err(Cut::Broken)) => Err(Answer::refusal(
                StatusCode::BAD_REQUEST,
                "the body ends before its announced end or is badly chunked",
            )),
            Err(_) => Err(Answer::refusal(
                StatusCode::REQUEST_TIMEOUT,
                format!("the body did not come within {} s", self.limits.timeout.as_secs()),
            )),
        }
    }

    /// Gives an answer that does not depend on the body, after reading some of it.
    pub(crate) async fn refuse(mut self, answer: Answer) -> Answer {
        // Who waits to be told to go on has sent nothing.
        if !self.head.headers.contains_key(header::EXPECT) {
            discard(&mut self.body).await;
        }
        answer
    }
}

/// Reads a body of at most `max` bytes, as long as there is memory for it.
async fn collect(body: &mut Incoming, max: usize, memory: &BodyMemory) -> Result<Body, Cut> {
    let mut bytes = Vec::new();
    let mut held: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Cut::Broken)?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > max {
            return Err(Cut::TooLarge);
        }
        let units = (bytes.len() + data.len()).div_ceil(UNIT);
        let more = units - held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if more > 0 {
            let more = u32::try_from(more).map_err(|_| Cut::TooLarge)?;
            let more = Arc::clone(&memory.0).try_acquire_many_owned(more);
            let more = more.map_err(|_| Cut::NoMemory)?;
            match &mut held {
                Some(held) => held.merge(more),
                None => held = Some(more),
            }
        }
        bytes.extend_from_slice(data);
    }
    Ok(Body { bytes, _memory: held })
}

/// Reads and drops what is left of a body, within bounds.
async fn discard(body: &mut Incoming) {
    let (max, patience) = DISCARD;
    let rest = async {
        let mut seen = 0;
        while seen < max {
            match body.frame().await {
                Some(Ok(frame)) => seen += frame.data_ref().map_or(0, Bytes::len),
                _ => break,
            }
        }
    };
    // What is left then is the client's loss.
    let _ = timeout(patience, rest).await;
}
