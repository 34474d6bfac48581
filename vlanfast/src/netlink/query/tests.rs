use std::{
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex as Lock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::*;
use crate::state::snapshot::Ifindex;

/// The datagrams with which the simulated kernel answers the request with a sequence number.
type Script = dyn FnMut(u32) -> Vec<Vec<u8>> + Send;

/// Creates a connection to a simulated kernel, which counts the sockets.
fn fake(script: impl FnMut(u32) -> Vec<Vec<u8>> + Send + 'static) -> (Netlink, Arc<AtomicUsize>) {
    let sockets = Arc::new(AtomicUsize::new(0));
    let count = sockets.clone();
    let script: Arc<Lock<Script>> = Arc::new(Lock::new(script));
    let netlink = Netlink::behind(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, kernels) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let script = script.clone();
        thread::spawn(move || {
            let mut question = [0; 4096];
            while let Ok(12..) = recv(kernels.as_raw_fd(), &mut question, MsgFlags::empty()) {
                let number = u32::from_ne_bytes(*question[8..].first_chunk().unwrap());
                for datagram in script.lock().unwrap()(number) {
                    let _ = send(kernels.as_raw_fd(), &datagram, MsgFlags::MSG_NOSIGNAL);
                }
            }
        });
        Ok(ours)
    });
    (netlink, sockets)
}

fn message(kind: i32, flags: u16, number: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend((kind as u16).to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(body);
    bytes
}

fn link(number: u32) -> Vec<u8> {
    message(libc::RTM_NEWLINK.into(), 0, number, b"link")
}

fn ack(number: u32, code: i32) -> Vec<u8> {
    message(libc::NLMSG_ERROR, 0, number, &code.to_ne_bytes())
}

fn done(number: u32) -> Vec<u8> {
    message(libc::NLMSG_DONE, 0, number, &[0; 4])
}

fn question() -> Request {
    Request::links(libc::RTM_GETLINK, NLM_F_ACK, Ifindex(7))
}

fn dump() -> Request {
    Request::links(libc::RTM_GETLINK, NLM_F_DUMP, Ifindex(0))
}

/// Returns how many messages were passed on, and the result.
async fn ask(netlink: &Netlink, request: &Request) -> (usize, Result<bool, Failure>) {
    let mut count = 0;
    let result = netlink.ask(request, |_| count += 1).await;
    (count, result)
}

#[tokio::test]
async fn an_answer_is_complete_or_not() {
    type Answer = fn(u32) -> Vec<Vec<u8>>;
    let answers: [(Answer, usize, bool); 8] = [
        (|n| vec![link(n), link(n), done(n)], 2, true),
        (|n| vec![[link(n), done(n)].concat()], 1, true),
        // These are late answers to another request.
        (
            |n| vec![link(n - 1), done(n - 1), link(n), done(n)],
            1,
            true,
        ),
        (
            |n| {
                vec![
                    message(libc::RTM_NEWLINK.into(), NLM_F_DUMP_INTR, n, &[]),
                    done(n),
                ]
            },
            1,
            false,
        ),
        (
            |n| vec![message(libc::NLMSG_OVERRUN, 0, n, &[]), link(n), done(n)],
            1,
            false,
        ),
        // Answers may be truncated within a message, or by the size of the buffer.
        (
            |n| vec![[link(n), link(n)[..18].to_vec()].concat(), done(n)],
            1,
            false,
        ),
        (
            |n| vec![[link(n), vec![0; DATAGRAM]].concat(), done(n)],
            1,
            false,
        ),
        // No message may follow the end.
        (|n| vec![[done(n), link(n)].concat()], 0, false),
    ];
    for (number, (answer, count, whole)) in answers.into_iter().enumerate() {
        let (netlink, _) = fake(answer);
        for _ in 0..3 {
            let (found, ended) = ask(&netlink, &dump()).await;
            assert_eq!((found, ended.unwrap()), (count, whole), "answer {number}");
        }
    }
}

#[tokio::test]
async fn a_refusal_is_distinguished_from_an_invalid_answer() {
    let errno = |answer: fn(u32) -> Vec<u8>| async move {
        let (netlink, sockets) = fake(move |n| vec![answer(n)]);
        let failure = ask(&netlink, &question()).await.1.unwrap_err();
        let again = ask(&netlink, &question()).await.1.unwrap_err();
        assert_eq!(failure.errno(), again.errno());
        // A refusal is a complete answer, so the socket stays in use.
        assert_eq!(sockets.load(Ordering::Relaxed), 1);
        failure
    };
    assert_eq!(
        errno(|n| ack(n, -libc::ENODEV)).await.errno(),
        Some(Errno::ENODEV)
    );
    errno(|n| ack(n, i32::MIN)).await;
    let failed_dump = |n| message(libc::NLMSG_DONE, 0, n, &(-libc::ENONET).to_ne_bytes());
    assert_eq!(errno(failed_dump).await.errno(), Some(Errno::ENONET));
    let short = errno(|n| message(libc::NLMSG_ERROR, 0, n, &[1])).await;
    assert!(matches!(short, Failure::Garbled(_)), "{short:?}");
    // The extended ACK has the error code, the header of the refused request, and an attribute.
    let explained = |n| {
        let mut body = (-libc::EEXIST).to_ne_bytes().to_vec();
        body.resize(20, 0);
        body.extend([11, 0, 1, 0]);
        body.extend(b"\x1b[2Jno\0\0");
        message(libc::NLMSG_ERROR, 0x300, n, &body)
    };
    let text = format!("{:#}", errno(explained).await.of("add it"));
    assert!(
        text.starts_with(r"failed to add it: \u{1b}[2Jno: "),
        "{text}"
    );
}

#[tokio::test]
async fn silence_ends_and_the_next_is_not_waited_for_as_long() {
    let answers = Arc::new(AtomicUsize::new(0));
    let script = {
        let answers = answers.clone();
        move |n| match answers.load(Ordering::Relaxed) {
            0 => vec![],
            // The answer is for another socket.
            1 => vec![link(n - 1); 8],
            _ => vec![link(n), ack(n, 0)],
        }
    };
    let (netlink, sockets) = fake(script);
    let silent = async || {
        let start = Instant::now();
        let failure = ask(&netlink, &question()).await.1.unwrap_err();
        let text = failure.of("ask").to_string();
        assert!(
            text.contains("failed to ask: netlink does not answer; "),
            "{text}"
        );
        start.elapsed()
    };
    assert!(silent().await >= SILENCE);
    // Removing everything may take as long.
    let start = Instant::now();
    for _ in 0..9 {
        assert!(silent().await >= AFTER_SILENCE);
    }
    assert!(start.elapsed() < Duration::from_secs(20));
    answers.store(1, Ordering::Relaxed);
    silent().await;
    assert_eq!(sockets.load(Ordering::Relaxed), 11);
    answers.store(2, Ordering::Relaxed);
    // The real kernel would have answered before the wait, but the simulated one is slower.
    let start = Instant::now();
    while ask(&netlink, &question()).await.1.is_err() {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    answers.store(0, Ordering::Relaxed);
    assert!(silent().await >= SILENCE);
}

#[tokio::test]
async fn a_cancelled_request_does_not_affect_the_next() {
    let mut asked = 0;
    let (netlink, sockets) = fake(move |n| {
        asked += 1;
        match asked {
            1 => vec![link(n)],
            _ => vec![link(n), link(n), done(n)],
        }
    });
    let question = dump();
    tokio::select! {
        _ = ask(&netlink, &question) => panic!("it has no end"),
        () = tokio::time::sleep(Duration::from_millis(20)) => {}
    }
    assert_eq!(ask(&netlink, &dump()).await.0, 2);
    assert_eq!(sockets.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn while_a_dump_has_not_ended_the_next_uses_a_new_socket() {
    let mut asked = 0;
    let (netlink, sockets) = fake(move |n| {
        asked += 1;
        match asked {
            1 => vec![ack(n, -libc::EBUSY)],
            2 => vec![link(n), done(n)],
            _ => vec![ack(n, -libc::EBUSY)],
        }
    });
    assert_eq!(ask(&netlink, &dump()).await.0, 1);
    assert_eq!(sockets.load(Ordering::Relaxed), 2);
    // The request is repeated once only, because the refusal may be meant.
    let refused = ask(&netlink, &dump()).await.1.unwrap_err();
    assert_eq!(refused.errno(), Some(Errno::EBUSY));
    // A request that is no dump may be refused like this for a reason of its own.
    let refused = ask(&netlink, &question()).await.1.unwrap_err();
    assert_eq!(refused.errno(), Some(Errno::EBUSY));
    assert_eq!(sockets.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_socket_that_fails_is_no_answer_and_is_not_used_again() {
    let broken = Arc::new(AtomicUsize::new(1));
    let socket = broken.clone();
    let netlink = Netlink::behind(move || {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, kernels) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        if socket.load(Ordering::Relaxed) == 0 {
            thread::spawn(move || {
                let mut question = [0; 64];
                recv(kernels.as_raw_fd(), &mut question, MsgFlags::empty()).unwrap();
                let number = u32::from_ne_bytes(*question[8..].first_chunk().unwrap());
                send(kernels.as_raw_fd(), &ack(number, 0), MsgFlags::empty()).unwrap();
            });
        }
        Ok(ours)
    });
    for _ in 0..2 {
        let failure = ask(&netlink, &question()).await.1.unwrap_err();
        assert!(matches!(failure, Failure::Socket(_)), "{failure:?}");
    }
    broken.store(0, Ordering::Relaxed);
    assert!(ask(&netlink, &question()).await.1.unwrap());
}
