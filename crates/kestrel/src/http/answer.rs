//! What is sent back.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// Nothing is fetched from elsewhere, framed by or sent to another page.
const POLICY: &str = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// An answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    kind: &'static str,
    body: Bytes,
    /// One header more.
    extra: Option<(header::HeaderName, &'static str)>,
}

impl Answer {
    fn new(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            kind,
            body: body.into(),
            extra: None,
        }
    }

    /// A page.
    pub(crate) fn html(body: impl Into<Bytes>) -> Self {
        Self::new(StatusCode::OK, "text/html; charset=utf-8", body)
    }

    /// Plain text.
    pub(crate) fn text(body: impl Into<Bytes>) -> Self {
        Self::new(StatusCode::OK, "text/plain; charset=utf-8", body)
    }

    /// A JSON object.
    pub(crate) fn json(value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(StatusCode::OK, "application/json", body),
            Err(error) => Self::fault(&error.into()),
        }
    }

    /// An error in one sentence.
    pub(crate) fn refusal(status: StatusCode, sentence: impl Into<String>) -> Self {
        let body = serde_json::json!({ "error": sentence.into() }).to_string();
        Self::new(status, "application/json", body)
    }

    /// The program's own fault, which is logged too.
    pub(crate) fn fault(error: &anyhow::Error) -> Self {
        tracing::error!("{error:#}");
        Self::refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
    }

    /// There is nothing of that name.
    pub(crate) fn not_found(sentence: &str) -> Self {
        Self::refusal(StatusCode::NOT_FOUND, sentence)
    }

    /// Another method is wanted; `allowed` are those that there are.
    pub(crate) fn method_not_allowed(allowed: &'static str) -> Self {
        Self {
            extra: Some((header::ALLOW, allowed)),
            ..Self::refusal(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("this address takes {allowed} alone"),
            )
        }
    }

    /// Too much is asked at once; the same request may be sent again a little later.
    pub(crate) fn busy(sentence: impl Into<String>) -> Self {
        Self {
            extra: Some((header::RETRY_AFTER, "1")),
            ..Self::refusal(StatusCode::SERVICE_UNAVAILABLE, sentence)
        }
    }

    /// The status code.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let always = [
            (header::CONTENT_TYPE, self.kind),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
        ];
        let headers = response.headers_mut();
        for (name, value) in always.into_iter().chain(self.extra) {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
