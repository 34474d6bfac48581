//! The server of `/metrics`, `/ready` and `/live`, on a thread of its own: however long a scrape or a
//! client takes, the reconciler does not wait for it; and however many there are, whoever comes is served.

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

/// For a client to say what it wants.
const HEAD: Duration = Duration::from_secs(2);
/// What it may say: Prometheus takes 300 bytes in 7 headers.
const HEAD_BYTES: usize = 16 << 10;
const HEADERS: usize = 64;
/// For a client to have it all. Prometheus gives up after as long.
const WHOLE: Duration = Duration::from_secs(10);
/// Before the next connection is accepted where one could not be: no descriptors are left.
const PAUSE: Duration = Duration::from_millis(100);

/// The address is taken, or not this host's.
#[derive(Debug, Error)]
#[error(
    "can't serve metrics on {address}: {cause}; choose another address with --metrics ADDR:PORT, or \
     --metrics off"
)]
pub struct ListenError {
    address: SocketAddr,
    cause: io::Error,
}

/// Takes the address. From here on clients wait, and [`Server::start`] answers them.
pub fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|cause| ListenError { address, cause })
}

/// A server that runs; dropped, it stops.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Reads what the programs have counted.
type ReadTotals = dyn Fn() -> anyhow::Result<Totals> + Send + Sync;

/// Reads how far the programs trust the tables.
type ReadTrust = dyn Fn() -> anyhow::Result<Trust> + Send + Sync;

/// What the answers are made of.
struct Sources {
    published: watch::Receiver<Option<Arc<Report>>>,
    totals: Box<ReadTotals>,
    trust: Box<ReadTrust>,
}

impl Server {
    /// Serves what is published at the time of each scrape, with the counters as they are then. `trust`
    /// says whether the process still does its work: this thread would answer though it hung.
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
                        // What is being answered ends with the runtime.
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
            // It can only have panicked, and has said so.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: &tokio::net::TcpListener, sources: Arc<Sources>) {
    let room = Arc::new(Connections::default());
    for number in 0.. {
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(_) => time::sleep(PAUSE).await,
            }
        };
        let (place, sources) = (room.place(number), sources.clone());
        let task = tokio::spawn(async move {
            // A client that is too slow, or goes away, is no concern of ours.
            let _ = time::timeout(WHOLE, converse(stream, &sources, &place)).await;
        });
        room.enter(number, task.abort_handle());
        // Whoever is here may have asked by now, and is to be heard before others come.
        task::yield_now().await;
    }
}

/// One connection, one answer: none stays open to wait for the next scrape.
async fn converse(
    stream: TcpStream,
    sources: &Sources,
    place: &ConnectionSlot,
) -> hyper::Result<()> {
    let service = service_fn(|request| async move {
        place.asks();
        Ok::<_, Infallible>(sources.answer(&request))
    });
    http1::Builder::new()
        .keep_alive(false)
        // Who has said all that it has to say waits for an answer.
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
        // Not held: the reconciler would wait for it.
        let published = self.published.borrow().clone();
        match (request.uri().path(), published) {
            ("/live", published) => match self.ails(published.as_deref()) {
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

    /// Why the process does not do its work, if it does not.
    fn ails(&self, published: Option<&Report>) -> Option<String> {
        match (self.trust)() {
            Ok(Trust { alive: true, .. }) => {}
            Ok(_) => {
                let why = "the heartbeat has expired: the process hangs, or its tables can't be kept true, or XDP can't see VLAN tags";
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
            format!("somebody has taken the program off: {missing}; see `vlanfast status`")
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
