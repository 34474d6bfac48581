use super::*;

fn message(kind: u16, index: u32) -> Vec<u8> {
    let mut bytes = vec![];
    bytes.extend(36u32.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.resize(20, 0);
    bytes.extend(index.to_ne_bytes());
    bytes.resize(36, 0);
    bytes
}

fn record(nsid: Option<i32>, datagram: &[u8]) -> Notifications {
    let mut heard = Notifications::default();
    heard.record(nsid, datagram, datagram.len());
    heard
}

#[test]
fn every_message_of_a_datagram_is_recorded_for_its_namespace() {
    let mut heard = Notifications::default();
    let datagram = [
        message(libc::RTM_NEWLINK, 7),
        message(libc::RTM_DELADDR, 9),
        message(libc::RTM_NEWROUTE, 11),
    ]
    .concat();
    heard.record(Some(3), &datagram, datagram.len());
    assert!(heard.hooks.is_empty());
    heard.record(None, &message(libc::RTM_DELLINK, 7), 36);
    let dirty = &heard.dirty;
    assert_eq!(
        dirty.links[&Some(3)],
        BTreeSet::from([Ifindex(7), Ifindex(9)])
    );
    assert_eq!(dirty.links[&None], BTreeSet::from([Ifindex(7)]));
    assert!(!dirty.list && !dirty.all);
}

#[test]
fn events_about_hooks_are_recorded_for_our_own_devices_and_make_nothing_dirty() {
    for kind in [
        libc::RTM_NEWQDISC,
        libc::RTM_DELQDISC,
        libc::RTM_NEWTFILTER,
        libc::RTM_DELTFILTER,
    ] {
        let heard = record(None, &message(kind, 7));
        assert_eq!(heard.dirty, Dirty::default());
        assert_eq!(heard.hooks.devices, BTreeSet::from([Ifindex(7)]));
        assert!(heard.hooks.may_be_of(Ifindex(7)) && !heard.hooks.may_be_of(Ifindex(8)));
        assert_eq!(record(Some(3), &message(kind, 7)), Notifications::default());
    }
    // A change of XDP is sent as a notification about the device.
    let link = record(None, &message(libc::RTM_NEWLINK, 7));
    assert!(link.hooks.may_be_of(Ifindex(7)) && !link.dirty.links.is_empty());
}

#[test]
fn an_id_that_was_taken_back_is_noted() {
    let mut event = 36u32.to_ne_bytes().to_vec();
    event.extend(libc::RTM_DELNSID.to_ne_bytes());
    event.resize(20, 0);
    // NETNSA_CURRENT_NSID is followed by NETNSA_NSID.
    for (kind, id) in [(5u16, 9i32), (1, 4)] {
        event.extend(8u16.to_ne_bytes());
        event.extend(kind.to_ne_bytes());
        event.extend(id.to_ne_bytes());
    }
    let heard = record(None, &event);
    assert!(heard.dirty.list && !heard.dirty.all);
    assert_eq!(heard.dirty.renumbered, BTreeSet::from([(None, 4)]));
    // Without the id, any id may stand for another namespace now.
    event.truncate(28);
    event[0] = 28;
    assert!(record(None, &event).dirty.all);
}

#[test]
fn a_message_with_a_wrong_length_may_have_been_about_anything() {
    for length in [0u32, 1, 15, 37, u32::MAX] {
        let mut bytes = message(libc::RTM_NEWLINK, 7);
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        for end in [36, 15, 3] {
            let heard = record(None, &bytes[..end]);
            assert!(heard.dirty.all && heard.hooks.all, "{length} {end}");
        }
    }
    // The message is too short to name its device.
    for index in [0, u32::MAX] {
        assert!(record(None, &message(libc::RTM_NEWLINK, index)).dirty.all);
    }
}

#[test]
fn a_truncated_event_is_about_its_device_or_anything() {
    let bytes = message(libc::RTM_NEWLINK, 7);
    for room in 1..bytes.len() {
        let mut heard = Notifications::default();
        heard.record(None, &bytes[..room], bytes.len());
        let has_index = room >= 24;
        assert_eq!(heard.dirty.all, !has_index, "{room}");
        assert_eq!(heard.dirty.links.contains_key(&None), has_index, "{room}");
    }
    // The truncated part contained another message.
    let mut heard = Notifications::default();
    heard.record(None, &bytes[..30], 72);
    assert!(heard.dirty.all);
    let mut heard = Notifications::default();
    heard.record(None, &bytes, 72);
    assert!(heard.dirty.all);
}
