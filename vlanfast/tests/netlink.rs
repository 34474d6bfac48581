//! Tests with corrupted netlink dumps: whatever is wrong, a request ends, and no device is wrongly taken for absent.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Mutex,
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use proptest::{prelude::*, sample::Index};
use tokio::runtime::{Builder, Runtime};
use vlanfast::{
    netlink::{
        Netlink,
        decode::address,
        merge::NamespaceDump,
        query::Message,
        request::Request,
        tc::{filter, qdisc},
    },
    state::snapshot::{Ifindex, LinkKind, Mode, Namespace, Nsid},
};

/// Dumps recorded from Linux 6.18: veths, one with an alias that is not UTF-8 and an alternative name, one whose name
/// is not UTF-8, macvlan, macvtap, IPv4 with and without a peer, IPv6, clsact and two BPF filters. All messages have
/// sequence number 1, and the end of each dump is left out.
const LINKS: &[u8] = include_bytes!("data/links.bin");
const ADDRESSES: &[u8] = include_bytes!("data/addresses.bin");
const QDISCS: &[u8] = include_bytes!("data/qdiscs.bin");
const FILTERS: &[u8] = include_bytes!("data/filters.bin");

const HEADER: usize = 16;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Sends a request to a peer that answers with these datagrams and nothing else.
async fn answered(
    datagrams: &[&[u8]],
    request: &Request,
    each: impl FnMut(Message<'_>),
) -> Option<bool> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    let (ours, kernels): (OwnedFd, OwnedFd) = pair;
    for datagram in datagrams {
        send(kernels.as_raw_fd(), datagram, MsgFlags::empty()).unwrap();
    }
    // The peer accepts the request but never answers more, so that the request does not fail before it has read the
    // datagrams.
    nix::sys::socket::shutdown(kernels.as_raw_fd(), nix::sys::socket::Shutdown::Write).unwrap();
    let once = Mutex::new(Some(ours));
    let netlink = Netlink::behind(move || {
        let socket = once.lock().unwrap().take();
        socket.ok_or_else(|| io::Error::other("there is no other kernel"))
    });
    netlink.ask(request, each).await.ok()
}

fn done() -> Vec<u8> {
    let mut message = message(3, &0i32.to_ne_bytes());
    message[6] = 2;
    message
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(0u16.to_ne_bytes());
    bytes.extend(1u32.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().unwrap()))
}

/// Splits a dump into the bodies of its messages, independently of the code under test, as far as it is valid.
fn bodies(mut dump: &[u8]) -> Vec<&[u8]> {
    let mut bodies = vec![];
    while let Some(length) = number(dump, 0).map(|length| length as usize) {
        if length < HEADER || length > dump.len() {
            break;
        }
        bodies.push(&dump[HEADER..length]);
        dump = dump.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    bodies
}

/// Reads a namespace from two dumps.
fn read(links: &[u8], addresses: &[u8]) -> Option<NamespaceDump> {
    let mut read = NamespaceDump::default();
    let end = done();
    let ask = Request::links(libc::RTM_GETLINK, 0x300, Ifindex(0));
    runtime().block_on(async {
        let all = [links, &end];
        let take = |message: Message<'_>| read.link(Nsid::Own, message, Nsid::Other);
        let whole = answered(&all, &ask, take).await?;
        read.links.record_answer(whole);
        let all = [addresses, &end];
        let take = |message: Message<'_>| read.address(message);
        let whole = answered(&all, &ask, take).await?;
        read.addresses.record_answer(whole);
        Some(read)
    })
}

fn as_recorded() -> Namespace {
    let read = read(LINKS, ADDRESSES).unwrap();
    assert!(read.is_whole());
    read.merge_into(None)
}

#[test]
fn a_dump_is_read_as_it_was_meant() {
    let namespace = as_recorded();
    let find = |name: &[u8]| {
        let mut links = namespace.links.iter();
        links
            .find(|(_, link)| link.name.as_bytes() == name)
            .unwrap()
    };
    let (up0, trunk) = find(b"up0");
    assert!(trunk.up && trunk.mtu == 1500 && trunk.promiscuity.count == 1);
    let (m0, macvlan) = find(b"m0");
    assert_eq!(macvlan.kind, LinkKind::Macvlan(Mode::Bridge));
    assert_eq!(macvlan.lower, Some((Nsid::Own, *up0)));
    assert_eq!(find(b"m1").1.kind, LinkKind::Macvtap(Mode::Vepa));
    assert_eq!(find(b"\xff\xfe").1.kind, LinkKind::Other);
    let has = |device, address: &str| {
        let addresses = &namespace.addresses[device];
        assert!(
            addresses.contains(&address.parse().unwrap()),
            "{address}: {addresses:?}"
        );
    };
    has(up0, "10.9.0.5");
    has(up0, "fd00::5");
    // This is the device's own address, not its peer's.
    has(m0, "192.0.2.9");
    let qdiscs: Vec<_> = bodies(QDISCS)
        .into_iter()
        .map(|it| qdisc(it).unwrap())
        .collect();
    assert!(
        qdiscs
            .iter()
            .any(|(device, it)| device == up0 && it.kind.to_string() == "clsact")
    );
    let filters: Vec<_> = bodies(FILTERS)
        .into_iter()
        .filter_map(|it| filter(it).unwrap())
        .collect();
    let priorities: Vec<_> = filters.iter().map(|it| it.priority).collect();
    assert_eq!(priorities, [49151, 49152]);
    for filter in filters {
        let program = filter.program.unwrap();
        assert_eq!(
            (
                program.name.to_string().as_str(),
                filter.handle,
                filter.chain
            ),
            ("vlanfast_rx", 1, 0)
        );
        assert_ne!(program.id, 0);
    }
}

/// A corruption of a dump.
#[derive(Clone, Debug)]
enum Wrong {
    Byte(Index, u8),
    /// A 16-bit number is replaced, usually by a value that is critical as a length.
    Short(Index, u16),
    Cut(Index),
    Hole(Index, usize),
    /// Bytes are overwritten with some of this or another dump.
    Splice(Index, usize, Index, usize),
}

fn wrong() -> impl Strategy<Value = Wrong> {
    let index = any::<Index>();
    prop_oneof![
        4 => (index.clone(), any::<u8>()).prop_map(|(at, byte)| Wrong::Byte(at, byte)),
        3 => (index.clone(), prop_oneof![0u16..40, Just(u16::MAX), Just(0x7fff), any::<u16>()])
            .prop_map(|(at, value)| Wrong::Short(at, value)),
        1 => index.clone().prop_map(Wrong::Cut),
        1 => (index.clone(), 1usize..64).prop_map(|(at, length)| Wrong::Hole(at, length)),
        2 => (index.clone(), 0usize..4, index, 1usize..80)
            .prop_map(|(at, from, start, length)| Wrong::Splice(at, from, start, length)),
    ]
}

fn spoil(dump: &[u8], wrongs: &[Wrong]) -> Vec<u8> {
    let mut dump = dump.to_vec();
    for wrong in wrongs {
        if dump.is_empty() {
            break;
        }
        let length = dump.len();
        match wrong {
            Wrong::Byte(at, byte) => dump[at.index(length)] = *byte,
            Wrong::Short(at, value) => {
                let at = at.index(length) / 4 * 4;
                for (to, from) in dump[at..].iter_mut().zip(value.to_ne_bytes()) {
                    *to = from;
                }
            }
            Wrong::Cut(at) => dump.truncate(at.index(length)),
            Wrong::Hole(at, size) => {
                let at = at.index(length);
                dump.drain(at..(at + size).min(length));
            }
            Wrong::Splice(at, from, start, size) => {
                let source = [LINKS, ADDRESSES, QDISCS, FILTERS][*from];
                let start = start.index(source.len());
                let piece = &source[start..(start + size).min(source.len())];
                let at = at.index(length);
                for (to, from) in dump[at..].iter_mut().zip(piece) {
                    *to = *from;
                }
            }
        }
    }
    dump
}

/// Corrupts the body of one message of a dump.
fn spoil_one(dump: &[u8], which: Index, wrongs: &[Wrong]) -> Vec<u8> {
    let mut starts = vec![0];
    for body in bodies(dump) {
        let start = starts[starts.len() - 1];
        starts.push(start + (HEADER + body.len()).next_multiple_of(4));
    }
    let which = which.index(starts.len() - 1);
    let (from, to) = (starts[which], starts[which + 1]);
    // The framing stays valid, so that the messages that follow can be read.
    let body = spoil(&dump[from + HEADER..to], wrongs);
    let kind = u16::from_ne_bytes(dump[from + 4..from + 6].try_into().unwrap());
    [&dump[..from], &message(kind, &body), &dump[to..]].concat()
}

/// Checks that every device that the dump showed is present or reported as possibly missing, and that unreadable
/// messages are reported.
fn nothing_is_taken_for_absent(links: &[u8], addresses: &[u8]) -> Result<(), TestCaseError> {
    let old = as_recorded();
    let Some(read) = read(links, addresses) else {
        // The kernel refused the dump, or its end is unclear: then everything is kept.
        return Ok(());
    };
    let (seen, lacks) = (read.namespace.clone(), read.links.clone());
    let (some_lack, is_whole) = (read.addresses.clone(), read.is_whole());
    let new = read.merge_into(Some(&old));
    let indices = |dump| -> BTreeSet<_> {
        let indices = bodies(dump).into_iter().filter_map(|body| number(body, 4));
        indices
            .filter(|index| (1..=i32::MAX as u32).contains(index))
            .collect()
    };
    let shown: BTreeSet<u32> = indices(links);
    for index in shown.iter().map(|index| Ifindex(*index)) {
        prop_assert!(
            seen.links.contains_key(&index) || lacks.may_be_of(index),
            "{index:?} is not reported"
        );
    }
    for (index, link) in &old.links {
        match new.links.get(index) {
            Some(_) => {}
            None => prop_assert!(
                lacks.is_nothing() || !lacks.may_be_of(*index) && !shown.contains(&index.0),
                "{link:?} is taken for absent"
            ),
        }
        if !shown.contains(&index.0) && lacks.anything {
            prop_assert_eq!(new.links.get(index), Some(link));
        }
    }
    for body in bodies(addresses) {
        if let Err(error) = address(body) {
            let reported = some_lack.anything
                || error
                    .ifindex
                    .is_some_and(|index| some_lack.of.contains(&index));
            prop_assert!(reported && !is_whole);
        }
    }
    if some_lack.anything {
        for (index, known) in &old.addresses {
            let now = &new.addresses[index];
            prop_assert!(known.iter().all(|address| now.contains(address)));
        }
    }
    Ok(())
}

proptest! {
    // A case takes two dumps. This program also runs every night.
    #![proptest_config(ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_wrong_with_a_dump(
        links in prop::collection::vec(wrong(), 0..4),
        addresses in prop::collection::vec(wrong(), 0..4),
    ) {
        nothing_is_taken_for_absent(&spoil(LINKS, &links), &spoil(ADDRESSES, &addresses))?;
    }

    #[test]
    fn whatever_is_wrong_with_one_message(
        (link, links) in (any::<Index>(), prop::collection::vec(wrong(), 1..3)),
        (address, addresses) in (any::<Index>(), prop::collection::vec(wrong(), 1..3)),
    ) {
        let (links, addresses) = (spoil_one(LINKS, link, &links), spoil_one(ADDRESSES, address, &addresses));
        // The framing of the other messages is unchanged, so that all of them are read.
        prop_assert_eq!(bodies(&links).len(), bodies(LINKS).len());
        nothing_is_taken_for_absent(&links, &addresses)?;
    }

    #[test]
    fn whatever_is_wrong_with_qdiscs_and_filters(
        qdiscs in prop::collection::vec(wrong(), 1..4),
        filters in prop::collection::vec(wrong(), 1..4),
    ) {
        for body in bodies(&spoil(QDISCS, &qdiscs)) {
            let device = number(body, 4).filter(|index| (1..=i32::MAX as u32).contains(index));
            match qdisc(body) {
                Ok((index, _)) => prop_assert_eq!(Some(index.0), device),
                Err(error) => prop_assert_eq!(error.ifindex.map(|index| index.0), device),
            }
        }
        for body in bodies(&spoil(FILTERS, &filters)) {
            let device = number(body, 4).filter(|index| (1..=i32::MAX as u32).contains(index));
            match filter(body) {
                Ok(Some(filter)) => prop_assert_eq!(Some(filter.handle), number(body, 8)),
                Ok(None) => prop_assert_eq!(number(body, 8), Some(0)),
                Err(error) => prop_assert_eq!(error.ifindex.map(|index| index.0), device),
            }
        }
    }
}
