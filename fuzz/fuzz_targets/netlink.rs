//! Any bytes as rtnetlink's answer: no panic, no hang, and nobody taken for absent. Whatever names its device in a
//! header is read, or reported as what could not be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vlanfast::{
    netlink::{
        decode,
        merge::NamespaceDump,
        query::messages,
        tc::{filter, qdisc},
    },
    state::snapshot::Nsid,
};

/// What is known before: a real kernel's devices, and their addresses.
const BEFORE: [&[u8]; 2] = [
    include_bytes!("../../vlanfast/tests/data/links.bin"),
    include_bytes!("../../vlanfast/tests/data/addresses.bin"),
];

fuzz_target!(|now: &[u8]| {
    let old = read(&BEFORE.concat()).merge_into(None);
    let read = read(now);
    for message in messages(now).map_while(Result::ok) {
        let ifindex = decode::ifindex(message.body);
        if message.kind == libc::RTM_NEWLINK
            && let Some(ifindex) = ifindex
        {
            let is_read = read.namespace.links.contains_key(&ifindex);
            assert!(is_read || read.links.may_be_of(ifindex));
        }
        // These have the index in the same place, and know it even if the rest can't be read.
        if let Err(error) = qdisc(message.body) {
            assert_eq!(error.ifindex, ifindex);
        }
        if let Err(error) = filter(message.body) {
            assert_eq!(error.ifindex, ifindex);
        }
        let _ = decode::id(message.body);
    }
    let (links, addresses) = (read.links.clone(), read.addresses.clone());
    let new = read.merge_into(Some(&old));
    for ifindex in old.links.keys() {
        assert!(new.links.contains_key(ifindex) || !links.may_be_of(*ifindex));
    }
    for (ifindex, known) in &old.addresses {
        let stays = |address| {
            new.addresses
                .get(ifindex)
                .is_some_and(|now| now.contains(address))
        };
        assert!(!addresses.may_be_of(*ifindex) || known.iter().all(stays));
    }
});

/// The devices and the addresses among some bytes.
fn read(bytes: &[u8]) -> NamespaceDump {
    let mut read = NamespaceDump::default();
    for message in messages(bytes) {
        match message {
            Ok(message) if message.kind == libc::RTM_NEWADDR => read.address(message),
            Ok(message) => read.link(Nsid::Own, message, Nsid::Other),
            Err(()) => {
                read.links.record_answer(false);
                read.addresses.record_answer(false);
            }
        }
    }
    read
}
