//! Generates malicious answers from a seed. The same seed always gives the same answer.

use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};

/// A repetition that ends only when the client closes the connection.
const ENDLESS: usize = usize::MAX;

pub enum Step {
    Say(Vec<u8>),
    Repeat(Vec<u8>, usize),
    /// Sends the bytes one by one, with a pause before each.
    Drip(Vec<u8>, Duration),
    /// Waits until the client closes the connection.
    Hang,
}

/// A malicious answer for one path. Other paths are answered as Docker does.
pub struct Hostile {
    pub name: &'static str,
    pub path: &'static str,
    pub steps: Vec<Step>,
    /// Whether the answer ends by itself, or at a limit other than time.
    pub ends: bool,
    /// Whether the answer may happen to be valid.
    pub may_be_sane: bool,
}

const HEAD: &str = "HTTP/1.1 200 OK\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn say(text: impl Into<Vec<u8>>) -> Step {
    Step::Say(text.into())
}

/// Builds a valid response with any body.
fn with_length(body: impl Into<Vec<u8>>) -> Vec<Step> {
    let body = body.into();
    vec![
        say(format!("{HEAD}Content-Length: {}\r\n\r\n", body.len())),
        say(body),
    ]
}

/// Builds a response whose body goes on until the connection is closed.
fn open(start: &str, repeated: &str, times: usize) -> Vec<Step> {
    // The repetition is sent in large parts, so that the sender is not slower than the reader.
    let many = repeated.repeat((64 << 10) / repeated.len() + 1);
    vec![
        say(format!("{HEAD}\r\n{start}")),
        Step::Repeat(many.into(), times),
    ]
}

/// Returns Docker's real answer for a path.
fn value(path: &str) -> Value {
    match path {
        "/version" => json!({"ApiVersion": "1.41", "MinAPIVersion": "1.12"}),
        "/networks" => json!([{"Id": "m10", "Name": "macvlan10", "Driver": "macvlan",
            "ConfigFrom": {"Network": ""}, "Options": {"parent": "eth0.10"}}]),
        "/containers/json" => json!([{"Id": "c", "Names": ["/web"], "Labels":
            {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"},
            "NetworkSettings": {"Networks": {"macvlan10": {"NetworkID": "m10",
            "MacAddress": "02:42:0a:00:0a:02", "IPAddress": "10.0.10.2"}}}}]),
        _ => panic!("unexpected request for {path}"),
    }
}

pub fn sane(path: &str) -> Vec<Step> {
    with_length(value(path).to_string())
}

pub fn whole(path: &'static str, body: String) -> Hostile {
    Hostile {
        name: "whole",
        path,
        steps: with_length(body),
        ends: true,
        may_be_sane: true,
    }
}

type Steps = fn(&mut Rng, &str) -> Vec<Step>;

/// The kinds of answers: name, whether it ends by itself, whether it may be valid, and its steps.
const KINDS: &[(&str, bool, bool, Steps)] = &[
    ("a huge list", true, false, |_, _| open("[\"", "x", ENDLESS)),
    ("an endless list of nothing", true, false, |_, _| {
        open("[{}", ",{}", ENDLESS)
    }),
    ("a million elements", true, true, |_, _| {
        with_length(format!("[{}{{}}]", "{},".repeat(1_000_000)))
    }),
    ("a million macvlans", true, false, |_, _| {
        open("[{}", ",{\"Driver\":\"macvlan\"}", ENDLESS)
    }),
    ("a million names of one", true, false, |_, _| {
        open("[{\"Names\":[\"\"", ",\"\"", 300)
    }),
    ("a million networks of one", true, false, |_, _| {
        let start = r#"[{"NetworkSettings":{"Networks":{"":{}"#;
        open(start, r#","":{"NetworkID":""}"#, 300)
    }),
    ("a million labels of one", true, false, |_, _| {
        open("[{\"Labels\":{\"\":\"\"", ",\"\":\"\"", 300)
    }),
    ("deep lists", true, false, |_, _| open("", "[", 300)),
    ("deep objects", true, false, |_, _| {
        open("[", "{\"a\":", 300)
    }),
    ("depth where nothing is read", true, false, |_, _| {
        open("[{\"x\":", "[", 300)
    }),
    ("an escaped name as long as all", true, false, |_, _| {
        open("[{\"Names\":[\"", "\\n", 380)
    }),
    ("an endless chunk", true, false, |_, _| {
        vec![
            say(CHUNKED),
            say("fffffffffffffff\r\n["),
            Step::Repeat(vec![b' '; 65536], ENDLESS),
        ]
    }),
    ("chunks of one byte", true, false, |_, _| {
        vec![
            say(CHUNKED),
            Step::Repeat(b"1\r\n[\r\n".repeat(10_000), ENDLESS),
        ]
    }),
    ("a chunk too large for any number", true, false, |_, _| {
        vec![say(CHUNKED), say("ffffffffffffffffffff\r\n[]")]
    }),
    ("an endless chunk size", true, false, |_, _| {
        vec![say(CHUNKED), Step::Repeat(vec![b'0'; 65536], ENDLESS)]
    }),
    ("an endless chunk extension", true, false, |_, _| {
        vec![
            say(CHUNKED),
            say("1;"),
            Step::Repeat(vec![b'a'; 65536], ENDLESS),
        ]
    }),
    ("endless trailers", true, true, |_, path| {
        let body = value(path).to_string();
        let start = format!("{CHUNKED}{:x}\r\n{body}\r\n0\r\n", body.len());
        vec![
            say(start),
            Step::Repeat(b"a: b\r\n".repeat(10_000), ENDLESS),
        ]
    }),
    ("an endless head", true, false, |_, _| {
        vec![say(HEAD), Step::Repeat(b"a: b\r\n".repeat(10_000), ENDLESS)]
    }),
    ("an endless header", true, false, |_, _| {
        vec![
            say(HEAD),
            say("a: "),
            Step::Repeat(vec![b'a'; 65536], ENDLESS),
        ]
    }),
    ("an endless reason", true, false, |_, _| {
        vec![
            say("HTTP/1.1 200 "),
            Step::Repeat(vec![b'a'; 65536], ENDLESS),
        ]
    }),
    ("one to continue after the other", true, false, |_, _| {
        vec![Step::Repeat(
            b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000),
            ENDLESS,
        )]
    }),
    ("no answer at all", false, false, |_, _| vec![Step::Hang]),
    ("a head and no more", false, false, |_, _| {
        vec![say(CHUNKED), Step::Hang]
    }),
    ("a body and no end", false, false, |_, path| {
        vec![
            say(format!(
                "{HEAD}Content-Length: 99999\r\n\r\n{}",
                value(path)
            )),
            Step::Hang,
        ]
    }),
    ("one byte a second", false, false, |_, path| {
        let text = format!("{HEAD}\r\n{}", value(path));
        vec![Step::Drip(text.into(), Duration::from_secs(1))]
    }),
    ("a body in drops", false, false, |_, _| {
        vec![
            say(CHUNKED),
            Step::Drip("1\r\n[\r\n".repeat(1000).into(), Duration::from_millis(10)),
        ]
    }),
    ("nothing", true, false, |_, _| vec![]),
    ("cut off in its head", true, false, |rng, _| {
        vec![say(&HEAD[..rng.usize(..HEAD.len())])]
    }),
    ("cut off in its body", true, false, |rng, path| {
        let body = value(path).to_string();
        let head = format!("{HEAD}Content-Length: {}\r\n\r\n", body.len());
        vec![say(head), say(&body[..rng.usize(..body.len())])]
    }),
    ("cut off without a length", true, false, |rng, path| {
        let body = value(path).to_string();
        vec![say(format!(
            "{HEAD}\r\n{}",
            &body[..rng.usize(..body.len())]
        ))]
    }),
    ("cut off in a chunk size", true, false, |_, _| {
        vec![say(CHUNKED), say("1\r\n[\r\n1")]
    }),
    ("a length too short", true, false, |rng, path| {
        let body = value(path).to_string();
        let length = rng.usize(..body.len());
        vec![say(format!("{HEAD}Content-Length: {length}\r\n\r\n{body}"))]
    }),
    ("a length that is none", true, false, |rng, path| {
        let length = rng
            .choice(["-1", "", "0x10", "99999999999999999999", "1, 2"])
            .unwrap();
        vec![say(format!(
            "{HEAD}Content-Length: {length}\r\n\r\n{}",
            value(path)
        ))]
    }),
    ("two lengths", true, false, |_, path| {
        vec![say(format!(
            "{HEAD}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
            value(path)
        ))]
    }),
    ("a failure", true, false, |rng, _| {
        let code = rng.u16(400..600);
        vec![say(format!(
            "HTTP/1.1 {code} No\r\nContent-Length: 16\r\n\r\n{{\"message\":\"no\"}}"
        ))]
    }),
    ("an endless failure", true, false, |_, _| {
        vec![
            say("HTTP/1.1 500 No\r\n\r\n"),
            Step::Repeat(vec![b'a'; 65536], ENDLESS),
        ]
    }),
    ("somewhere else", true, false, |rng, _| {
        let place = rng
            .choice(["http://192.0.2.1/", "/networks", "unix:///tmp/x", "\x1b[2J"])
            .unwrap();
        vec![say(format!(
            "HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"
        ))]
    }),
    ("another protocol", true, false, |_, _| {
        vec![say(
            "HTTP/1.1 101 Switching\r\nUpgrade: tcp\r\nConnection: upgrade\r\n\r\n[]",
        )]
    }),
    ("garbage before HTTP", true, false, |rng, path| {
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(64).collect();
        bytes.extend(format!("{HEAD}\r\n{}", value(path)).into_bytes());
        vec![Step::Say(bytes)]
    }),
    ("garbage alone", true, false, |rng, _| {
        vec![Step::Say(
            std::iter::repeat_with(|| rng.u8(..))
                .take(100_000)
                .collect(),
        )]
    }),
    ("bytes instead of JSON", true, false, |rng, _| {
        let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(10_000).collect();
        with_length(bytes)
    }),
    ("a letter changed", true, true, |rng, path| {
        let mut body = value(path).to_string().into_bytes();
        let at = rng.usize(..body.len());
        body[at] = rng.u8(..);
        with_length(body)
    }),
    ("other types", true, true, |rng, path| {
        let mut body = value(path);
        replace(rng, &mut body);
        with_length(body.to_string())
    }),
    ("odd names", true, true, |rng, path| {
        let mut body = value(path);
        rename(&mut body, &odd_name(rng));
        with_length(body.to_string())
    }),
    ("everything twice", true, false, |_, path| {
        let body = value(path).to_string().replace(
            '{',
            "{\"Name\":1,\"Name\":1,\"Labels\":1,\"Labels\":1,\"ApiVersion\":1,\"ApiVersion\":1,",
        );
        with_length(body)
    }),
];

/// Generates each kind once, and then some of them again with other random numbers.
pub fn generate(seed: u64) -> Hostile {
    let mut rng = Rng::with_seed(seed);
    let (name, ends, may_be_sane, steps) = KINDS[seed as usize % KINDS.len()];
    // Most of these corruptions are about lists.
    let list = name.contains("of one") || name.contains("escaped");
    let path = match name {
        _ if list => "/containers/json",
        "a million macvlans" => "/networks",
        _ => rng
            .choice(["/version", "/networks", "/containers/json"])
            .unwrap(),
    };
    Hostile {
        name,
        path,
        steps: steps(&mut rng, path),
        ends,
        may_be_sane,
    }
}

/// Replaces one or more values by others.
fn replace(rng: &mut Rng, value: &mut Value) {
    let others = [
        json!(null),
        json!(-1),
        json!(1e300),
        json!(true),
        json!(""),
        json!([]),
        json!({}),
    ];
    if rng.u8(..4) == 0 {
        *value = rng.choice(others).unwrap();
        return;
    }
    match value {
        Value::Array(elements) => elements
            .iter_mut()
            .for_each(|element| replace(rng, element)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(rng, field)),
        _ => {}
    }
}

fn rename(value: &mut Value, name: &str) {
    match value {
        Value::String(text) if text.len() < 8 => *text = name.to_owned(),
        Value::Array(elements) => elements
            .iter_mut()
            .for_each(|element| rename(element, name)),
        Value::Object(fields) => fields.values_mut().for_each(|field| rename(field, name)),
        _ => {}
    }
}

fn odd_name(rng: &mut Rng) -> String {
    let odd = [
        "\x1b[2J",
        "\u{202e}",
        "\0",
        "\r\n",
        "\u{1f600}",
        "//",
        "../..",
        "\u{9b}31m",
        "%00",
    ];
    match rng.u8(..3) {
        0 => "x".repeat(1 << 20),
        1 => "\u{e9}".repeat(rng.usize(1..200)),
        _ => std::iter::repeat_with(|| rng.choice(odd).unwrap())
            .take(20)
            .collect(),
    }
}
