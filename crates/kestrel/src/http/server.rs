//! Listens, and answers until it is told to stop.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::{IpAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use super::guard::{self, Names};
use super::request::BodyMemory;
use super::timed_io::TimedIo;
use super::{Answer, Request};
use crate::interrupt::Interrupt;

/// Bytes of a request's head at most.
const MAX_HEAD: usize = 16 * 1024;
/// Connections at once; the next waits until one of them ends.
const MAX_CONNECTIONS: u32 = 256;
/// Threads that work on answers; each keeps some memory of its own.
const MAX_WORKERS: usize = 8;
/// How long a connection may stand without the head of a request, if `--timeout` is not shorter: there are not many.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// After which a signal is seen.
const LOOK: Duration = Duration::from_millis(50);

/// What a client may ask of the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of a body.
    pub(crate) max_body: usize,
    /// How long it may take over the body of a request, and over reading a part of the answer; over the head, idle time between
    /// two requests included, five seconds at most.
    pub(crate) timeout: Duration,
}

/// A server that listens and does not answer yet.
pub(crate) struct Server {
    listener: TcpListener,
    names: Names,
}

impl Server {
    /// Listens at an address; port 0 is any that is free.
    pub(crate) fn bind(host: IpAddr, port: u16) -> Result<Self> {
        let hint = || format!("cannot listen at {host} on port {port}; choose others with --host and --port");
        let listener = TcpListener::bind((host, port)).with_context(hint)?;
        let address = listener.local_addr().context("the port")?;
        if !host.is_loopback() {
            tracing::warn!("Others in the network can reach {address}, without a password and unencrypted.");
        }
        let names = Names {
            address,
            public_host: None,
        };
        Ok(Self { listener, names })
    }

    /// The same under a name that a proxy before it has.
    pub(crate) fn with_public_host(mut self, host: Option<&str>) -> Self {
        self.names.public_host = host.map(Arc::from);
        self
    }

    /// Prints the page's address.
    pub(crate) fn announce(&self) -> Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "http://{}/", self.names.address)?;
        Ok(out.flush()?)
    }

    /// Answers until a signal comes, and what is asked by then.
    pub(crate) fn run<F>(
        self,
        limits: Limits,
        handler: impl Fn(Request) -> F + Clone + Send + Sync + 'static,
    ) -> Result<()>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let interrupt = Interrupt::listen()?;
        let stop = async {
            while interrupt.signal().is_none() {
                tokio::time::sleep(LOOK).await;
            }
            tracing::info!("Stopping; what is asked already is answered. A second Ctrl-C stops at once.");
        };
        interrupt.during(|| self.run_until(limits, handler, stop))
    }

    /// Answers until `stop`, and what is asked by then.
    fn run_until<F>(
        self,
        limits: Limits,
        handler: impl Fn(Request) -> F + Clone + Send + Sync + 'static,
        stop: impl Future<Output = ()>,
    ) -> Result<()>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        // Input and output need one thread; the work of answering is done on others.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(MAX_WORKERS)
            .build()?;
        self.listener.set_nonblocking(true)?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener)?;
            let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
            let memory = BodyMemory::new(limits);
            let (ending, ended) = watch::channel(false);
            let accept = async {
                loop {
                    // The semaphore is never closed.
                    let Ok(place) = Arc::clone(&connections).acquire_owned().await else {
                        return;
                    };
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            let names = self.names.clone();
                            let connection =
                                connection(stream, names, limits, memory.clone(), handler.clone(), ended.clone());
                            tokio::spawn(async move {
                                connection.await;
                                drop(place);
                            });
                        }
                        Err(error) => {
                            // Too many open files, or a client that has gone again: neither ends the server.
                            tracing::debug!("a connection did not come about: {error}");
                            tokio::time::sleep(LOOK).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = accept => {}
                () = stop => {}
            }
            drop(listener);
            // Those whose handlers wait hold places; they are told, and given the time that an answer may take.
            ending.send_replace(true);
            let all = connections.acquire_many(MAX_CONNECTIONS);
            if tokio::time::timeout(2 * limits.timeout, all).await.is_err() {
                tracing::warn!("Some connections were cut.");
            }
            Ok(())
        })
    }
}

/// Answers the requests of one connection.
async fn connection<F: Future<Output = Answer> + Send + 'static>(
    stream: TcpStream,
    names: Names,
    limits: Limits,
    memory: BodyMemory,
    handler: impl Fn(Request) -> F,
    mut ended: watch::Receiver<bool>,
) {
    // Answers are sent whole; waiting to send more with them gains nothing.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let refusal = guard::refusal(request.headers(), &names);
        let line = format!("{} {}", request.method(), request.uri().path());
        let request = Request::new(request, limits, memory.clone());
        let answer = match refusal {
            Some(refusal) => Err(request.refuse(refusal)),
            None => Ok(handler(request)),
        };
        async move {
            let answer = match answer {
                Ok(answer) => answer.await,
                Err(refusal) => refusal.await,
            };
            tracing::debug!("{line}: {}", answer.status().as_u16());
            Ok::<_, Infallible>(answer.into_response())
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.timeout.min(HEAD_PATIENCE))
        .max_buf_size(MAX_HEAD)
        // A client that has said all may close its half and wait for the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(TimedIo::new(stream, limits.timeout)), service);
    let mut connection = pin!(connection);
    let told = async {
        // An error is the server's end too.
        let _ = ended.wait_for(|ended| *ended).await;
    };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = told => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!("a connection ended: {error}");
    }
}
