//! Tests of the answers of the server, and of their timing.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Instant,
};

use super::*;
use crate::{metrics::connections::CONNECTIONS, state::report::HookState};

type Publisher = watch::Sender<Option<Arc<Report>>>;

/// A time limit below that of a scraper, and above what a scrape takes on a busy machine.
const SOON: Duration = Duration::from_secs(5);

fn start(first: Option<Report>) -> (Server, Publisher, SocketAddr) {
    start_with(first, || {
        Ok(Trust {
            alive: true,
            incomplete: 0,
        })
    })
}

fn start_with(
    first: Option<Report>,
    trust: impl Fn() -> anyhow::Result<Trust> + Send + Sync + 'static,
) -> (Server, Publisher, SocketAddr) {
    let (publisher, published) = watch::channel(first.map(Arc::new));
    let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let counters = || Ok(Totals::default());
    let server = Server::start(listener, published, counters, trust).unwrap();
    (server, publisher, address)
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

/// A report with so many VLANs that an answer does not fit into the sockets' buffers.
fn large() -> Report {
    let vids = (1..4095).map(vlanfast_common::Vid::new);
    let parents = vids.map(|vid| (vid, format!("eth0.{vid}").as_str().into()));
    Report {
        trunk: "eth0".into(),
        parents: Arc::new(parents.collect()),
        ..Report::default()
    }
}

fn hook(hook: &'static str, attached: bool) -> HookState {
    HookState {
        hook,
        mode: "tcx",
        reason: "",
        attached,
        preceded_by: vec![],
    }
}

#[test]
fn it_is_not_live_when_the_process_is_not() {
    let (_server, _publisher, address) =
        start_with(Some(Report::default()), || Ok(Trust::default()));
    let said = ask(address, "GET /live");
    assert!(said.starts_with("HTTP/1.1 503"), "{said}");
    assert!(said.contains("the heartbeat has expired"), "{said}");
    assert!(ask(address, "GET /ready").starts_with("HTTP/1.1 200"));
    // Scraping still works, and shows the state.
    let metrics = ask(address, "GET /metrics");
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(metrics.contains("\nvlanfast_heartbeat_alive{trunk=\"\"} 0\n"));
}

#[test]
fn it_is_not_live_if_its_state_cannot_be_read() {
    let unreadable = || anyhow::bail!("failed to read SETTINGS");
    let (_server, _publisher, address) = start_with(Some(Report::default()), unreadable);
    let said = ask(address, "GET /live");
    assert!(said.starts_with("HTTP/1.1 503"), "{said}");
    assert!(said.contains("failed to read SETTINGS"), "{said}");
    assert!(ask(address, "GET /metrics").starts_with("HTTP/1.1 500"));
}

#[test]
fn it_is_not_live_while_a_hook_is_without_its_program() {
    let with = |ingress, egress| Report {
        hooks: vec![hook("ingress", ingress), hook("egress", egress)],
        ..Report::default()
    };
    let (_server, publisher, address) = start(Some(with(true, true)));
    assert!(ask(address, "GET /live").starts_with("HTTP/1.1 200"));
    publisher.send_replace(Some(Arc::new(with(true, false))));
    let said = ask(address, "GET /live");
    assert!(said.starts_with("HTTP/1.1 503"), "{said}");
    assert!(said.contains("off: egress (tcx);"), "{said}");
    publisher.send_replace(Some(Arc::new(with(false, false))));
    let said = ask(address, "GET /live");
    assert!(
        said.contains("off: ingress (tcx) and egress (tcx);"),
        "{said}"
    );
    publisher.send_replace(Some(Arc::new(with(true, true))));
    assert!(ask(address, "GET /live").starts_with("HTTP/1.1 200"));
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
fn other_paths_and_methods_are_refused() {
    let (_server, _publisher, address) = start(None);
    assert!(ask(address, "GET /").starts_with("HTTP/1.1 404"));
    assert!(ask(address, "POST /metrics").starts_with("HTTP/1.1 405"));
}

#[test]
fn the_error_for_an_address_in_use_names_a_remedy_on_one_line() {
    let (_server, _publisher, address) = start(None);
    let said = listen(address).unwrap_err().to_string();
    assert!(said.starts_with(&format!(
        "can't serve metrics on {address}: Address already in use"
    )));
    assert!(said.ends_with("choose another address with --metrics ADDR:PORT, or --metrics off"));
    assert!(!said.contains('\n'));
}

/// Checks that a scrape is answered completely although others are connected.
fn is_served(address: SocketAddr) {
    let begin = Instant::now();
    let said = ask(address, "GET /metrics");
    assert!(said.starts_with("HTTP/1.1 200"), "{said:.80}");
    assert!(
        said.contains("\nvlanfast_build_info{"),
        "it ends before its end"
    );
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

#[test]
fn a_hundred_silent_clients_do_not_keep_a_scraper_from_being_served() {
    let (_server, _publisher, address) = start(Some(large()));
    let connect = |_| TcpStream::connect(address).unwrap();
    let mut silent: Vec<_> = (0..100).map(connect).collect();
    is_served(address);
    // The surplus connections were closed long before their time limit.
    let begin = Instant::now();
    for stream in &mut silent[..100 - CONNECTIONS] {
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "nothing was asked");
    }
    assert!(begin.elapsed() < HEAD, "{:?}", begin.elapsed());
    silent.extend((0..100).map(connect));
    is_served(address);
}

#[test]
fn slow_readers_do_not_keep_a_scraper_from_being_served() {
    let (_server, _publisher, address) = start(Some(large()));
    let slow: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            stream
        })
        .collect();
    is_served(address);
    drop(slow);
}

#[test]
fn silent_clients_do_not_close_a_connection_that_reads_its_answer() {
    let (_server, _publisher, address) = start(Some(large()));
    let mut reader = TcpStream::connect(address).unwrap();
    write!(reader, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut first = [0];
    reader.read_exact(&mut first).unwrap();
    let silent: Vec<_> = (0..100).map(|_| TcpStream::connect(address)).collect();
    assert!(silent.iter().all(Result::is_ok));
    is_served(address);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\nvlanfast_build_info{"), "it was cut off");
}

#[test]
fn a_head_without_an_end_is_refused_and_small() {
    let (_server, _publisher, address) = start(Some(Report::default()));
    let mut stream = TcpStream::connect(address).unwrap();
    let _ = write!(stream, "GET /metrics HTTP/1.1\r\nX: ");
    let mut sent = 0;
    // The client stops reading or closes the connection long before the end of the answer.
    stream.set_write_timeout(Some(SOON)).unwrap();
    while sent < 64 << 20 && stream.write_all(&[b'x'; 4096]).is_ok() {
        sent += 4096;
    }
    assert!(sent < 64 << 20, "it took {sent} bytes");
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 431"),
        "{said}"
    );
    let many = "X: y\r\n".repeat(HEADERS + 1);
    let said = ask(address, &format!("GET /ready HTTP/1.1\r\n{many}Y: z"));
    assert!(said.starts_with("HTTP/1.1 431"), "{said}");
    is_served(address);
}

#[test]
fn a_client_that_has_closed_its_side_has_its_answer() {
    let (_server, _publisher, address) = start(Some(large()));
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.contains("\nvlanfast_build_info{"), "{said:.80}");
}

#[test]
fn it_stops_when_it_is_dropped_and_frees_the_address() {
    let (server, _publisher, address) = start(None);
    let _silent = TcpStream::connect(address).unwrap();
    drop(server);
    listen(address).unwrap();
}
