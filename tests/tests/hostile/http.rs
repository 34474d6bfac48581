//! Generated input for the metrics server must not cause a panic, a hang, or unbounded memory.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use vlanfast_tests::{
    net::{namespace::in_netns, topology::Wire},
    require,
    run::{program::Attached, prometheus::get},
};

const PORT: u16 = 9436;
/// This is longer than the server's timeout for a client, and than anything takes under emulation.
const PATIENCE: Duration = Duration::from_secs(60);
/// The default scrape timeout of Prometheus.
const SCRAPE: Duration = Duration::from_secs(10);
/// The number of concurrent clients, which is below the server's limit, so that none is refused because of the
/// others.
const CLIENTS: u64 = 8;
const REQUESTS: u64 = 1_000;
/// The peak memory that the process may need in addition, in KiB.
const GROWTH: u64 = 16 << 10;

/// Pseudo-random numbers that are the same in each run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit as u64) as usize
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.roll() as u8).collect()
    }
}

/// The input of one client, and the answer that it expects.
#[derive(Debug)]
struct Case {
    bytes: Vec<u8>,
    /// The expected status of a valid request; `None` accepts any status or no answer.
    status: Option<u16>,
    /// The client shuts its sending side down.
    closes: bool,
    /// The client closes the connection without reading.
    flees: bool,
    /// The client sends the input in pieces of this size.
    piece: usize,
}

const TARGETS: &[(&str, u16)] = &[
    ("/metrics", 200),
    ("/ready", 200),
    ("/live", 200),
    ("/metrics?name[]=up", 200),
    ("/nothing", 404),
    ("http://localhost/metrics", 200),
];

/// Returns a valid request and its status.
fn valid(dice: &mut Dice) -> (Vec<u8>, u16) {
    let method = dice.one(&["GET", "GET", "GET", "HEAD", "POST", "DELETE", "BREW"]);
    let (target, status) = dice.one(TARGETS);
    let version = dice.one(&["1.0", "1.1"]);
    let headers: String = (0..dice.below(12))
        .map(|number| format!("X-{number}: {}\r\n", "y".repeat(dice.below(200))))
        .collect();
    let text = format!("{method} {target} HTTP/{version}\r\nHost: localhost\r\n{headers}\r\n");
    let status = match method {
        "GET" | "HEAD" => status,
        _ => 405,
    };
    (text.into_bytes(), status)
}

/// Changes, removes and inserts some bytes.
fn mutate(dice: &mut Dice, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..=dice.below(8) {
        let place = dice.below(bytes.len());
        match dice.below(3) {
            0 => bytes[place] = dice.roll() as u8,
            1 => bytes.insert(place, dice.one(b"\r\n\0 :/\xff")),
            _ => drop(bytes.drain(place..(place + dice.below(5)).min(bytes.len()))),
        }
        if bytes.is_empty() {
            return bytes;
        }
    }
    bytes
}

/// Returns a body that does not match its announced length or encoding.
fn body(dice: &mut Dice) -> Vec<u8> {
    let announced = dice.one(&[
        "Content-Length: 10",
        "Content-Length: 0",
        "Content-Length: 18446744073709551615",
        "Content-Length: -1",
        "Content-Length: 5\r\nContent-Length: 6",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Transfer-Encoding: gzip, identity",
        "Expect: 100-continue\r\nContent-Length: 4",
    ]);
    let method = dice.one(&["GET", "POST", "PUT"]);
    let head = format!("{method} /metrics HTTP/1.1\r\nHost: x\r\n{announced}\r\n\r\n");
    let sent = match dice.below(4) {
        0 => b"5\r\nhello\r\n0\r\n\r\n".to_vec(),
        1 => b"ffffffffffffffff\r\nhello\r\n".to_vec(),
        2 => b"xyz\r\n".to_vec(),
        _ => {
            let length = dice.below(100_000);
            dice.bytes(length)
        }
    };
    [head.into_bytes(), sent].concat()
}

fn odd(dice: &mut Dice) -> Vec<u8> {
    match dice.below(8) {
        0 | 1 => {
            let (bytes, _) = valid(dice);
            mutate(dice, bytes)
        }
        2 => {
            let length = dice.below(4096);
            dice.bytes(length)
        }
        3 => {
            // The head is too long: in one header, in many headers, or in the request target.
            let length = 1 << (12 + dice.below(8));
            let text = match dice.below(3) {
                0 => format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(length)),
                1 => format!(
                    "GET /ready HTTP/1.1\r\n{}\r\n",
                    "X: y\r\n".repeat(length / 6)
                ),
                _ => format!("GET /{} HTTP/1.1\r\n\r\n", "z".repeat(length)),
            };
            text.into_bytes()
        }
        4 => {
            let line = dice.one(&[
                "GET /metrics HTTP/0.9",
                "GET /metrics HTTP/2.0",
                "GET /metrics HTTP/9.99",
                "GET /metrics http/1.1",
                "GET /metrics",
                "GET  /metrics  HTTP/1.1",
                "PRI * HTTP/2.0\r\n\r\nSM",
                " /metrics HTTP/1.1",
                "GET metrics HTTP/1.1",
                "\r\n\r\n\r\nGET /metrics HTTP/1.1",
            ]);
            format!("{line}\r\nHost: x\r\n\r\n").into_bytes()
        }
        5 => (0..2 + dice.below(20))
            .flat_map(|_| valid(dice).0)
            .collect(),
        6 => body(dice),
        _ => {
            // The input is cut off at a random place.
            let (mut bytes, _) = valid(dice);
            bytes.truncate(dice.below(bytes.len()));
            bytes
        }
    }
}

fn case(number: u64) -> Case {
    let mut dice = Dice(number.wrapping_mul(0x5851_f42d_4c95_7f2d));
    let (bytes, status) = match dice.below(4) {
        0 => {
            let (bytes, status) = valid(&mut dice);
            (bytes, Some(status))
        }
        _ => (odd(&mut dice), None),
    };
    // The server waits for an incomplete request, which takes seconds, so these cases are few.
    let closes = dice.below(10) > 0;
    Case {
        status,
        closes,
        flees: dice.below(20) == 0,
        piece: dice.one(&[1 << 20, 1 << 20, 1 << 20, 1_000, 60]),
        bytes,
    }
}

/// Returns the answer to one client; `None` if the client or the server closed the connection early.
fn converse(case: &Case) -> std::io::Result<Option<String>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let hung_up = |error: &std::io::Error| {
        use ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
        [BrokenPipe, ConnectionReset, NotConnected].contains(&error.kind())
    };
    let mut speak = || -> std::io::Result<()> {
        for piece in case.bytes.chunks(case.piece.max(case.bytes.len() / 64)) {
            stream.write_all(piece)?;
        }
        match case.closes {
            true => stream.shutdown(Shutdown::Write),
            false => Ok(()),
        }
    };
    match speak() {
        Err(error) if !hung_up(&error) => return Err(error),
        _ if case.flees => return Ok(None),
        _ => {}
    }
    let mut said = vec![];
    match stream.read_to_end(&mut said) {
        Err(error) if !hung_up(&error) => Err(error),
        Err(_) if said.is_empty() => Ok(None),
        _ => Ok(Some(String::from_utf8_lossy(&said).into_owned())),
    }
}

/// Returns the peak memory of a process, in KiB.
fn peak(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.unwrap().parse().unwrap()
}

fn is_served_rightly(trunk: &str) {
    let start = Instant::now();
    let (status, metrics) = get(PORT, "/metrics").unwrap();
    assert!(start.elapsed() < SCRAPE, "{:?}", start.elapsed());
    assert_eq!(status, 200, "{metrics}");
    let alive = format!("\nvlanfast_heartbeat_alive{{trunk=\"{trunk}\"}} 1\n");
    assert!(metrics.contains(&alive), "{metrics}");
    assert!(metrics.contains("\nvlanfast_build_info{"), "{metrics}");
    assert_eq!(get(PORT, "/live").unwrap().0, 200);
}

fn attach(wire: &Wire) -> Attached {
    let arguments = ["--docker", "off", "--metrics", "127.0.0.1:9436"];
    Attached::start(&wire.host, &wire.trunk, &arguments).unwrap()
}

/// Ends the process in order; it has printed only notes about the attachment.
fn end(attached: Attached) {
    kill(attached.pid(), Signal::SIGTERM).unwrap();
    let ended = attached.end().unwrap();
    let said: Vec<_> = ended
        .stderr
        .lines()
        .filter(|line| !line.starts_with("note: "))
        .collect();
    assert_eq!((ended.code, said), (Some(0), vec![]));
}

#[test]
fn the_metrics_server_survives_any_input() {
    require!("http", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire);
    let (path, trunk) = (wire.host.path(), wire.trunk.clone());
    let look = move |path: &str| {
        let trunk = trunk.clone();
        in_netns(path, move || {
            is_served_rightly(&trunk);
            Ok(())
        })
        .unwrap();
    };
    look(&path);
    // The peak is reset here, because attaching needed more memory (see proc_pid_clear_refs(5)).
    fs::write(format!("/proc/{}/clear_refs", attached.pid()), "5").unwrap();
    let before = peak(attached.pid());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|first| {
            let path = path.clone();
            thread::spawn(move || in_netns(&path, move || Ok(talk(first))).unwrap())
        })
        .collect();
    let answered: u64 = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .sum();
    look(&path);
    let growth = peak(attached.pid()) - before;
    println!("figure: {REQUESTS} requests, {answered} answered: {growth} KiB more at the height");
    assert!(growth < GROWTH, "{growth} KiB");
    assert!((REQUESTS / 4..REQUESTS).contains(&answered), "{answered}");
    end(attached);
}

/// Runs one client's share of the cases; returns the number of answered requests.
fn talk(first: u64) -> u64 {
    let mut answered = 0;
    for number in (first..REQUESTS).step_by(CLIENTS as usize) {
        let case = case(number);
        let said = converse(&case).unwrap_or_else(|error| panic!("{number}: {error}: {case:?}"));
        let Some(said) = said.filter(|said| !said.is_empty()) else {
            assert!(case.status.is_none() || case.flees, "{number}: {case:?}");
            continue;
        };
        answered += 1;
        let status = said.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
        let status: Option<u16> = status.and_then(|status| status.parse().ok());
        assert!(status.is_some(), "{number}: {said:?} to {case:?}");
        if case.status.is_some() {
            assert_eq!(status, case.status, "{number}: {case:?}");
        }
    }
    answered
}

#[test]
fn a_hundred_silent_clients_do_not_keep_prometheus_from_its_scrape() {
    require!("silent", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let attached = attach(&wire);
    let trunk = wire.trunk.clone();
    in_netns(&wire.host.path(), move || {
        let connect = |_| TcpStream::connect((Ipv4Addr::LOCALHOST, PORT));
        let mut silent = vec![];
        for _ in 0..3 {
            silent.extend((0..100).map(connect));
            is_served_rightly(&trunk);
        }
        assert!(silent.iter().all(Result::is_ok));
        Ok(())
    })
    .unwrap();
    end(attached);
}
