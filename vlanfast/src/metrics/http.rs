//! The server of `/metrics`, `/ready` and `/live`, on a thread of its own: however long a scrape or a
//! client takes, the reconciler does not wait for it.

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
    sync::{Semaphore, oneshot, watch},
    time,
};

use super::registry::{self, Totals};
use crate::state::published::Published;

/// More wait in the backlog: each of these may hold a whole scrape in memory.
const CONNECTIONS: usize = 16;
/// For a client to say what it wants.
const HEAD: Duration = Duration::from_secs(2);
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

/// What the answers are made of.
struct Sources {
    published: watch::Receiver<Option<Arc<Published>>>,
    totals: Box<ReadTotals>,
    alive: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Server {
    /// Serves what is published at the time of each scrape, with the counters as they are then. `alive`
    /// says whether the process still does its work: this thread would answer though it hung.
    pub fn start(
        listener: TcpListener,
        published: watch::Receiver<Option<Arc<Published>>>,
        totals: impl Fn() -> anyhow::Result<Totals> + Send + Sync + 'static,
        alive: impl Fn() -> bool + Send + Sync + 'static,
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
            alive: Box::new(alive),
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
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    // Nobody closes it, so there always is a permit in the end.
    while let Ok(permit) = room.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            time::sleep(PAUSE).await;
            continue;
        };
        let sources = sources.clone();
        tokio::spawn(async move {
            // A client that is too slow, or goes away, is no concern of ours.
            let _ = time::timeout(WHOLE, converse(stream, &sources)).await;
            drop(permit);
        });
    }
}

/// One connection, one answer: none stays open to wait for the next scrape.
async fn converse(stream: TcpStream, sources: &Sources) -> hyper::Result<()> {
    let service =
        service_fn(|request| async move { Ok::<_, Infallible>(sources.answer(&request)) });
    http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
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
            ("/live", _) if (self.alive)() => plain(StatusCode::OK, "live\n".into()),
            ("/live", _) => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "the heartbeat has expired: the process hangs, or can't reach its sources\n".into(),
            ),
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

    fn scrape(&self, published: Arc<Published>) -> anyhow::Result<String> {
        registry::encode(published, (self.totals)()?)
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
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
        time::Instant,
    };

    use super::*;

    type Publisher = watch::Sender<Option<Arc<Published>>>;

    fn start(first: Option<Published>) -> (Server, Publisher, SocketAddr) {
        let (publisher, published) = watch::channel(first.map(Arc::new));
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let counters = || Ok(Totals::default());
        let server = Server::start(listener, published, counters, || true).unwrap();
        (server, publisher, address)
    }

    #[test]
    fn it_is_not_live_when_the_process_is_not() {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let (_publisher, published) = watch::channel(Some(Arc::default()));
        let _server =
            Server::start(listener, published, || Ok(Totals::default()), || false).unwrap();
        let said = ask(address, "GET /live");
        assert!(said.starts_with("HTTP/1.1 503"), "{said}");
        assert!(said.contains("the heartbeat has expired"), "{said}");
        assert!(ask(address, "GET /ready").starts_with("HTTP/1.1 200"));
    }

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    }

    #[test]
    fn it_is_live_at_once_and_ready_when_something_was_published() {
        let (_server, publisher, address) = start(None);
        assert!(ask(address, "GET /live").starts_with("HTTP/1.1 200"));
        assert!(ask(address, "GET /ready").starts_with("HTTP/1.1 503"));
        assert!(ask(address, "GET /metrics").starts_with("HTTP/1.1 503"));
        publisher.send_replace(Some(Arc::default()));
        assert!(ask(address, "GET /ready").starts_with("HTTP/1.1 200"));
        let metrics = ask(address, "GET /metrics");
        assert!(metrics.starts_with("HTTP/1.1 200"));
        assert!(metrics.contains("content-type: text/plain; version=0.0.4"));
        assert!(metrics.contains("\nvlanfast_build_info{"));
    }

    #[test]
    fn what_there_is_not_is_refused() {
        let (_server, _publisher, address) = start(None);
        assert!(ask(address, "GET /").starts_with("HTTP/1.1 404"));
        assert!(ask(address, "POST /metrics").starts_with("HTTP/1.1 405"));
    }

    #[test]
    fn an_address_that_is_taken_is_named_with_a_way_out_on_one_line() {
        let (_server, _publisher, address) = start(None);
        let said = listen(address).unwrap_err().to_string();
        assert!(said.starts_with(&format!(
            "can't serve metrics on {address}: Address already in use"
        )));
        assert!(
            said.ends_with("choose another address with --metrics ADDR:PORT, or --metrics off")
        );
        assert!(!said.contains('\n'));
    }

    #[test]
    fn silent_clients_take_the_place_of_others_for_a_moment_only() {
        let (_server, _publisher, address) = start(None);
        let silent: Vec<_> = (0..CONNECTIONS)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let begin = Instant::now();
        assert!(ask(address, "GET /live").starts_with("HTTP/1.1 200"));
        assert!(begin.elapsed() < 2 * HEAD, "{:?}", begin.elapsed());
        drop(silent);
    }

    #[test]
    fn it_stops_when_it_is_dropped_and_frees_the_address() {
        let (server, _publisher, address) = start(None);
        let _silent = TcpStream::connect(address).unwrap();
        drop(server);
        listen(address).unwrap();
    }
}
