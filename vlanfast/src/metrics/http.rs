//! The HTTP server for `/metrics`, `/ready` and `/live`. It has a thread of its own, so that a slow scrape or client
//! does not delay the reconciler, and it serves a new client however many others are connected.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::prometheus_text;
use thiserror::Error;
use tokio::{
    net::TcpStream,
    runtime,
    sync::{oneshot, watch},
    task, time,
};

use super::{
    registry,
    registry::{Totals, Trust},
};
use crate::{
    metrics::connections::{ConnectionSlot, Connections},
    state::report::Report,
};

/// The time limit for receiving a request header.
const HEAD: Duration = Duration::from_secs(2);
/// The limits of a request header. Prometheus sends 300 bytes in 7 headers.
const HEAD_BYTES: usize = 16 << 10;
const HEADERS: usize = 64;
/// The time limit for a connection, which is as long as the timeout of Prometheus.
const WHOLE: Duration = Duration::from_secs(10);
/// The pause after a connection could not be accepted because no file descriptors are left.
const PAUSE: Duration = Duration::from_millis(100);

/// The address is in use, or does not belong to this host.
#[derive(Debug, Error)]
#[error(
    "can't serve metrics on {address}: {cause}; choose another address with --metrics ADDR:PORT, or \
     --metrics off"
)]
pub struct ListenError {
    address: SocketAddr,
    cause: io::Error,
}

/// Binds the address. From now on clients can connect, and [`Server::start`] answers them.
pub fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|cause| ListenError { address, cause })
}

/// A running server. Dropping it stops the server.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A function that reads the counters of the programs.
type ReadTotals = dyn Fn() -> anyhow::Result<Totals> + Send + Sync;

/// A function that reads how far the programs trust the tables.
type ReadTrust = dyn Fn() -> anyhow::Result<Trust> + Send + Sync;

/// The sources of the answers.
struct Sources {
    published: watch::Receiver<Option<Arc<Report>>>,
    totals: Box<ReadTotals>,
    trust: Box<ReadTrust>,
}

impl Server {
    /// Starts to serve the report that is published at the time of each scrape, with the counters as they are then.
    /// `trust` tells whether the process is doing its work, because this thread would answer even if the rest of the
    /// process hung.
    pub fn start(
        listener: TcpListener,
        published: watch::Receiver<Option<Arc<Report>>>,
        totals: impl Fn() -> anyhow::Result<Totals> + Send + Sync + 'static,
        trust: impl Fn() -> anyhow::Result<Trust> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("failed to start the metrics server")?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener)
                .context("failed to start the metrics server")?
        };
        let sources = Sources {
            published,
            totals: Box::new(totals),
            trust: Box::new(trust),
        };
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("metrics".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = serve(&listener, Arc::new(sources)) => {}
                        // Unfinished answers end with the runtime.
                        _ = stopped => {}
                    }
                });
            })
            .context("failed to start the metrics server's thread")?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // An error means that the thread panicked, which has been reported already.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: &tokio::net::TcpListener, sources: Arc<Sources>) {
    let connections = Arc::new(Connections::default());
    for number in 0.. {
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(_) => time::sleep(PAUSE).await,
            }
        };
        let (slot, sources) = (connections.slot(number), sources.clone());
        let task = tokio::spawn(async move {
            // Errors of a client, or a client that is too slow, do not matter.
            let _ = time::timeout(WHOLE, answer_one(stream, &sources, &slot)).await;
        });
        connections.add(number, task.abort_handle());
        // Open connections may have sent their requests by now, which are read before another one is accepted.
        task::yield_now().await;
    }
}

/// Serves one request. No connection stays open for the next scrape.
async fn answer_one(
    stream: TcpStream,
    sources: &Sources,
    slot: &ConnectionSlot,
) -> hyper::Result<()> {
    let service = service_fn(|request| async move {
        slot.start_answer();
        Ok::<_, Infallible>(sources.answer(&request))
    });
    http1::Builder::new()
        .keep_alive(false)
        // A client may close its sending side and still wait for the answer.
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

impl Sources {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
        }
        // The lock is not held any longer, or the reconciler would have to wait.
        let published = self.published.borrow().clone();
        match (request.uri().path(), published) {
            ("/live", published) => match self.failure(published.as_deref()) {
                None => plain(StatusCode::OK, "live\n".into()),
                Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            ("/ready" | "/metrics", None) => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "not ready: nothing has been read yet\n".into(),
            ),
            ("/ready", Some(_)) => plain(StatusCode::OK, "ready\n".into()),
            ("/metrics", Some(published)) => match self.scrape(published) {
                Ok(text) => response(StatusCode::OK, prometheus_text::CONTENT_TYPE, text),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")),
            },
            _ => plain(
                StatusCode::NOT_FOUND,
                "there are /metrics, /ready and /live\n".into(),
            ),
        }
    }

    /// Returns the reason why the process is not doing its work, if it is not.
    fn failure(&self, published: Option<&Report>) -> Option<String> {
        match (self.trust)() {
            Ok(Trust { alive: true, .. }) => {}
            Ok(_) => {
                let why = "the heartbeat has expired: the process hangs, its tables can't be kept up to date, or XDP \
                           can't see VLAN tags";
                return Some(why.into());
            }
            Err(error) => return Some(format!("{error:#}")),
        }
        let hooks = published.map_or(&[][..], |published| &published.hooks);
        let missing: Vec<_> = hooks
            .iter()
            .filter(|hook| !hook.attached)
            .map(|hook| format!("{} ({})", hook.hook, hook.mode))
            .collect();
        (!missing.is_empty()).then(|| {
            let missing = missing.join(" and ");
            format!("the program was taken off: {missing}; see `vlanfast status`")
        })
    }

    fn scrape(&self, published: Arc<Report>) -> anyhow::Result<String> {
        registry::encode(published, (self.totals)()?, (self.trust)()?)
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text)
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests;
