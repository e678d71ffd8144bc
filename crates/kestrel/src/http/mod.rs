//! The HTTP server behind `watch` and `serve`: small pages and JSON for the browsers and programs of this machine.
//!
//! hyper speaks the protocol: it is in the build for downloads anyway, and knows keep-alive, pipelining and chunked bodies. What is
//! here is what keeps such a server standing: bounded connections, bodies and times, a check of who asks, and an end that loses
//! nothing. All input and output is on one thread; work goes to others.
//!
//! Every refusal is a JSON object with one sentence, `error`. Only where the head of a request is no HTTP at all or never comes to its
//! end, there is hyper's bare 400 or 431, or a closed connection.

mod answer;
mod guard;
mod request;
mod server;
mod timed_io;

pub(crate) use answer::Answer;
pub(crate) use request::{Body, Request};
pub(crate) use server::{Limits, Server};
