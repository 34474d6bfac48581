//! Layer 2, frame by frame, and what must hold for any bytes at all.

use proptest::prelude::*;
use vlanfast_common::{
    Bytes, Cast, Direction, Frame, Headers, Protocol, Segments, Tag, Uniform, Verdict, Vid, Vlan,
    classify, parse, wire,
};

const UNICAST: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
const IPV4: [u8; 2] = [0x08, 0x00];

/// A frame with a destination, then whatever stands where the type does.
fn frame(destination: [u8; 6], behind_addresses: &[u8]) -> Vec<u8> {
    [&destination[..], &[0x02, 0, 0, 0, 0, 9], behind_addresses].concat()
}

fn parsed(bytes: &[u8]) -> Headers {
    parse(&Bytes::new(bytes))
}

fn vid(number: u16) -> Vlan {
    Vlan::id(Vid::new(number))
}

#[test]
fn untagged_frames_are_vlan_0() {
    let headers = parsed(&frame(UNICAST, &[0x08, 0x00, 0x45]));
    assert_eq!(headers.vlan, Vlan::UNTAGGED);
    assert_eq!(headers.protocol, Protocol::IPV4);
    assert_eq!(headers.network, 14);
}

#[test]
fn pcp_and_dei_are_no_part_of_the_vid() {
    let headers = parsed(&frame(UNICAST, &[0x81, 0x00, 0xf0, 0x0a, 0x08, 0x00]));
    assert_eq!(headers.vlan, vid(10));
    assert_eq!(headers.network, 18);
}

#[test]
fn priority_tags_are_vlan_0() {
    let headers = parsed(&frame(UNICAST, &[0x81, 0x00, 0xe0, 0x00, 0x08, 0x00]));
    assert_eq!(headers.vlan, Vlan::UNTAGGED);
    assert_eq!(headers.protocol, Protocol::IPV4);
}

#[test]
fn a_priority_tag_before_a_vlan_tag_gives_way_to_it_as_in_linux() {
    let headers = parsed(&frame(
        UNICAST,
        &[0x81, 0, 0xe0, 0, 0x81, 0, 0, 20, 0x08, 0],
    ));
    assert_eq!(headers.vlan, vid(20));
    assert_eq!(headers.network, 22);
}

#[test]
fn stacked_tags_count_for_the_outer_vlan_and_are_not_looked_into() {
    let headers = parsed(&frame(UNICAST, &[0x81, 0, 0, 10, 0x81, 0, 0, 20, 0x08, 0]));
    assert_eq!(headers.vlan, vid(10));
    assert!(headers.protocol.is_stacked());
}

#[test]
fn service_tags_are_never_a_vlan_of_the_trunk() {
    let service = parsed(&frame(
        UNICAST,
        &[0x88, 0xa8, 0, 10, 0x81, 0, 0, 20, 0x08, 0],
    ));
    assert_eq!(service.vlan, Vlan::SERVICE);
    assert_eq!(service.vlan.vid(), None);
}

#[test]
fn lengths_are_told_from_types() {
    let headers = parsed(&frame(
        [0x01, 0x80, 0xc2, 0, 0, 0],
        &[0, 0x26, 0x42, 0x42, 3],
    ));
    assert!(headers.protocol.is_llc());
    assert_eq!(headers.protocol.number(), 0x26);
    assert_eq!(headers.cast, Cast::Multicast);
    assert!(!parsed(&frame(UNICAST, &[0x06, 0x00])).protocol.is_llc());
}

#[test]
fn casts_go_by_the_destination() {
    for (destination, cast) in [
        (UNICAST, Cast::Unicast),
        ([0x01, 0, 0x5e, 0, 0, 1], Cast::Multicast),
        ([0x33, 0x33, 0, 0, 0, 1], Cast::Multicast),
        ([0xff; 6], Cast::Broadcast),
    ] {
        assert_eq!(parsed(&frame(destination, &IPV4)).cast, cast);
    }
}

#[test]
fn a_stripped_tag_is_the_outermost_one() {
    let bytes = frame(UNICAST, &[0x08, 0x00, 0x45]);
    let stripped = Bytes {
        stripped_tag: Some(Tag {
            tpid: Tag::C_TAG,
            tci: 0xe00a,
        }),
        ..Bytes::new(&bytes)
    };
    let headers = parse(&stripped);
    assert_eq!((headers.vlan, headers.network), (vid(10), 14));
    assert_eq!(wire(&stripped, &headers).bytes, bytes.len() as u64 + 4);
}

#[test]
fn a_frame_that_ends_within_its_tag_has_no_vlan() {
    for end in [0, 6, 12, 13, 14, 15] {
        let bytes = frame(UNICAST, &[0x81, 0x00, 0x00, 0x0a]);
        assert_eq!(parsed(&bytes[..end]).vlan, Vlan::TRUNCATED, "{end} bytes");
    }
    let headers = parsed(&frame(UNICAST, &[0x81, 0x00, 0x00, 0x0a]));
    assert_eq!(
        (headers.vlan, headers.protocol),
        (vid(10), Protocol::TRUNCATED)
    );
}

/// An IPv4 or IPv6 packet behind an Ethernet header, with `extensions` destination options headers.
fn transport(version: u8, protocol: u8, payload: usize, extensions: usize) -> (Vec<u8>, usize) {
    let l4: &[u8] = match protocol {
        6 => &[
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x10, 0, 0, 0, 0, 0, 0, 1, 1, 8, 10, 0, 0, 0,
            0, 0, 0, 0, 0,
        ],
        _ => &[0; 8],
    };
    let mut bytes = match version {
        4 => {
            let mut bytes = frame(UNICAST, &[0x08, 0x00]);
            bytes.extend([0x46, 0, 0, 0, 0, 0, 0, 0, 64, protocol]);
            bytes.extend([0; 14]);
            bytes
        }
        _ => {
            let mut bytes = frame(UNICAST, &[0x86, 0xdd]);
            let first = if extensions > 0 { 60 } else { protocol };
            bytes.extend([0x60, 0, 0, 0, 1, 0, first, 64]);
            bytes.extend([0; 32]);
            for left in (0..extensions).rev() {
                bytes.extend([if left > 0 { 60 } else { protocol }, 0, 1, 4, 0, 0, 0, 0]);
            }
            bytes
        }
    };
    bytes.extend(l4);
    let header = bytes.len();
    bytes.resize(header + payload, 0xaa);
    (bytes, header)
}

#[test]
fn merged_frames_count_as_the_wire_carried_them() {
    for (version, protocol, extensions) in [(4, 6, 0), (4, 17, 0), (6, 6, 0), (6, 17, 0), (6, 6, 2)]
    {
        let (bytes, header) = transport(version, protocol, 2 * 1000 + 1, extensions);
        // 0 segments: what virtio tells the kernel of a frame that a virtual machine segmented.
        for count in [3, 0] {
            let merged = Bytes {
                stripped_tag: Some(Tag {
                    tpid: Tag::C_TAG,
                    tci: 10,
                }),
                segments: Some(Segments { count, size: 1000 }),
                bytes: &bytes,
            };
            let wire = wire(&merged, &parse(&merged));
            assert_eq!(wire.packets, 3, "IPv{version} protocol {protocol}");
            assert_eq!(wire.bytes, 2001 + 3 * (header as u64 + 4));
        }
    }
}

#[test]
fn merged_frames_of_unknown_protocols_count_by_the_kernels_word() {
    let (bytes, _) = transport(4, 50, 3000, 0);
    let segments = Some(Segments {
        count: 3,
        size: 1000,
    });
    let merged = Bytes {
        segments,
        ..Bytes::new(&bytes)
    };
    assert_eq!(wire(&merged, &parse(&merged)).packets, 3);
}

#[test]
fn the_header_of_big_tcp_is_not_counted_because_it_is_not_sent() {
    // Hop-by-hop options with a jumbo payload option, payload length 0: RFC 2675.
    let mut bytes = frame(UNICAST, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 0, 64]);
    bytes.extend([0; 32]);
    bytes.extend([6, 0, 0xc2, 4, 0, 1, 0x20, 0]);
    bytes.extend([
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0,
    ]);
    bytes.extend([0; 2000]);
    let segments = Some(Segments {
        count: 2,
        size: 1000,
    });
    let merged = Bytes {
        segments,
        ..Bytes::new(&bytes)
    };
    assert_eq!(
        wire(&merged, &parse(&merged)).bytes,
        2000 + 2 * (14 + 40 + 20)
    );
}

/// Frames that look like something: random bytes alone seldom get past the type field.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(vec![0x81, 0x00]),
        Just(vec![0x88, 0xa8]),
        Just(vec![0x08, 0x00]),
        Just(vec![0x86, 0xdd]),
        prop::collection::vec(any::<u8>(), 2),
    ];
    (any::<[u8; 12]>(), prop::collection::vec(word, 0..40))
        .prop_map(|(addresses, words)| [addresses.to_vec(), words.concat()].concat())
}

fn tags() -> impl Strategy<Value = Option<Tag>> {
    let tag = (
        prop_oneof![Just(Tag::C_TAG), Just(Tag::S_TAG)],
        any::<u16>(),
    );
    prop::option::of(tag.prop_map(|(tpid, tci)| Tag { tpid, tci }))
}

fn segments() -> impl Strategy<Value = Option<Segments>> {
    let segments = (0u32..70_000, 0u32..70_000);
    prop::option::of(segments.prop_map(|(count, size)| Segments { count, size }))
}

proptest! {
    #[test]
    fn any_bytes_have_headers_a_verdict_and_a_size(
        bytes in prop_oneof![plausible(), prop::collection::vec(any::<u8>(), 0..200)],
        stripped_tag in tags(),
        segments in segments(),
    ) {
        let frame = Bytes { bytes: &bytes, stripped_tag, segments };
        let headers = parse(&frame);
        prop_assert!(headers.vlan.key() < Vlan::COUNT);
        if let Some(vid) = headers.vlan.vid() {
            prop_assert!(vid.get() < 4096);
        }
        let verdict = classify(&frame, &headers, Direction::Rx, &Uniform::default());
        prop_assert_eq!(verdict, Verdict::Pass);
        let wire = wire(&frame, &headers);
        prop_assert!(wire.packets >= 1);
        if segments.is_none() {
            let tag = if stripped_tag.is_some() { 4 } else { 0 };
            prop_assert_eq!((wire.packets, wire.bytes), (1, frame.len() as u64 + tag));
        }
    }

    #[test]
    fn it_does_not_matter_whether_the_outer_tag_was_stripped(
        addresses in any::<[u8; 12]>(),
        tci in any::<u16>(),
        rest in prop::collection::vec(any::<u8>(), 2..60),
    ) {
        let in_bytes = [&addresses[..], &[0x81, 0x00], &tci.to_be_bytes(), &rest].concat();
        let without = [&addresses[..], &rest].concat();
        let stripped = Bytes {
            stripped_tag: Some(Tag { tpid: Tag::C_TAG, tci }),
            ..Bytes::new(&without)
        };
        let (a, b) = (parsed(&in_bytes), parse(&stripped));
        prop_assert_eq!((a.vlan, a.cast, a.protocol), (b.vlan, b.cast, b.protocol));
        prop_assert_eq!(wire(&Bytes::new(&in_bytes), &a), wire(&stripped, &b));
    }
}
