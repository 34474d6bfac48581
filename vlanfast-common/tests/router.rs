//! What a router does, for any packet.

use proptest::prelude::*;
use vlanfast_common::{Bytes, Hop, Segments, Vid, ends, fits, parse};

/// The ones' complement sum of what a checksum is over, which is 0xffff where that is right (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let sum = words.fold(0u32, |sum, word| {
        let low = word.get(1).copied().unwrap_or_default();
        sum + u32::from(u16::from_be_bytes([word[0], low]))
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

fn with_checksum(mut header: [u8; 20]) -> [u8; 20] {
    header[10..12].fill(0);
    let checksum = !sum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// TCP, UDP and ICMP by IP version and protocol, with the place of the checksum.
const TRANSPORTS: [(u8, u8, usize); 6] = [
    (4, 6, 16),
    (4, 17, 6),
    (4, 1, 2),
    (6, 6, 16),
    (6, 17, 6),
    (6, 58, 2),
];

/// What the checksum of a packet's payload is over: with a pseudo-header (RFC 9293 clause 3.1, RFC 8200 clause
/// 8.1), but for ICMP in IPv4.
fn summed(packet: &[u8]) -> Vec<u8> {
    match (packet[0] >> 4, packet[9]) {
        (4, 1) => packet[20..].to_vec(),
        (4, protocol) => {
            let length = (packet.len() as u16 - 20).to_be_bytes();
            [&packet[12..20], &[0, protocol], &length, &packet[20..]].concat()
        }
        _ => {
            let length = (packet.len() as u32 - 40).to_be_bytes();
            [
                &packet[8..40],
                &length,
                &[0, 0, 0, packet[6]],
                &packet[40..],
            ]
            .concat()
        }
    }
}

/// A packet whose checksums are right.
fn packet(
    (version, protocol, place): (u8, u8, usize),
    hops: u8,
    addresses: &[u8; 32],
    payload: &[u8],
) -> Vec<u8> {
    let length = payload.len() as u16;
    let header = match version {
        4 => {
            let [high, low] = (20 + length).to_be_bytes();
            let mut header = [0; 20];
            header[..10].copy_from_slice(&[0x45, 0, high, low, 9, 9, 0x40, 0, hops, protocol]);
            header[12..].copy_from_slice(&addresses[..8]);
            with_checksum(header).to_vec()
        }
        _ => {
            let [high, low] = length.to_be_bytes();
            [&[0x60, 0, 0, 0, high, low, protocol, hops][..], addresses].concat()
        }
    };
    let place = header.len() + place;
    let mut packet = [&header[..], payload].concat();
    packet[place..place + 2].fill(0);
    let checksum = !sum(&summed(&packet));
    packet[place..place + 2].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// A frame without a tag.
fn framed(kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &kind, packet].concat()
}

proptest! {
    #[test]
    fn a_hop_leaves_the_checksum_that_a_full_computation_gives(
        mut header in any::<[u8; 20]>(), ttl in 1..=255u8,
    ) {
        header[0] = 0x45;
        header[8] = ttl;
        let before = with_checksum(header);
        let word = before[8..12].try_into().unwrap();
        let mut after = before;
        after[8..12].copy_from_slice(&Hop::Ipv4.take(word));
        let mut expected = header;
        expected[8] = ttl - 1;
        prop_assert_eq!(after, with_checksum(expected));
    }

    #[test]
    fn a_checksum_that_was_wrong_stays_wrong(mut header in any::<[u8; 20]>(), ttl in 1..=255u8) {
        header[8] = ttl;
        let right = with_checksum(header);
        prop_assume!(right[10..12] != header[10..12]);
        let word = header[8..12].try_into().unwrap();
        header[8..12].copy_from_slice(&Hop::Ipv4.take(word));
        prop_assert_ne!(sum(&header), 0xffff);
    }

    #[test]
    fn a_hop_of_ipv6_is_one_less_and_nothing_else(word in any::<[u8; 4]>(), hops in 1..=255u8) {
        let [a, b, c, _] = word;
        prop_assert_eq!(Hop::Ipv6.take([a, b, c, hops]), [a, b, c, hops - 1]);
    }

    /// As the hook writes it: the hop's four bytes, and the MACs.
    #[test]
    fn a_hop_leaves_the_packet_that_a_router_would_make_anew(
        transport in prop::sample::select(&TRANSPORTS[..]), hops in 2..=255u8,
        mut addresses in any::<[u8; 32]>(), payload in prop::collection::vec(any::<u8>(), 20..80),
    ) {
        // None that ends at the link.
        addresses[0] = 0x20;
        let before = packet(transport, hops, &addresses, &payload);
        let kind = if transport.0 == 4 { [8, 0] } else { [0x86, 0xdd] };
        let mut whole = framed(kind, &before);
        let frame = Bytes::new(&whole);
        let headers = parse(&frame);
        prop_assert!(ends(&frame, &headers, Vid::new(10)).is_some());
        let hop = Hop::of(&headers).unwrap();
        let at = headers.network + hop.offset();
        let word = hop.take(whole[at..at + 4].try_into().unwrap());
        whole[at..at + 4].copy_from_slice(&word);
        let after = &whole[headers.network..];
        prop_assert_eq!(after, packet(transport, hops - 1, &addresses, &payload));
        prop_assert_eq!(sum(&summed(after)), 0xffff);
        prop_assert!(transport.0 != 4 || sum(&after[..20]) == 0xffff);
    }

    #[test]
    fn no_packet_is_read_past_its_end(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        for kind in [[8, 0], [0x86, 0xdd]] {
            let whole = framed(kind, &bytes);
            let frame = Bytes::new(&whole);
            let headers = parse(&frame);
            if let Some((sender, receiver)) = ends(&frame, &headers, Vid::new(10)) {
                // The addresses are in the packet, and the hop leaves one more.
                let hop = Hop::of(&headers).unwrap();
                let at = headers.network + hop.offset();
                let word: [u8; 4] = whole[at..at + 4].try_into().unwrap();
                hop.take(word);
                let length = match receiver.version { 4 => 4, _ => 16 };
                let both = [&sender.address[..length], &receiver.address[..length]].concat();
                prop_assert!(bytes.windows(2 * length).any(|part| part == both));
            }
        }
    }
}

#[test]
fn a_buffer_fits_where_each_of_its_packets_does() {
    // 40 bytes of headers, and segments of 1460.
    let mut packet = vec![0; 40 + 3 * 1460];
    packet[0] = 0x45;
    packet[9] = 6;
    packet[32] = 5 << 4;
    let bytes = framed([8, 0], &packet);
    let buffer = |segments| Bytes {
        segments,
        ..Bytes::new(&bytes)
    };
    let merged = buffer(Some(Segments {
        count: 3,
        size: 1460,
    }));
    let headers = parse(&merged);
    assert!(fits(&merged, &headers, 1500));
    assert!(!fits(&merged, &headers, 1499));
    assert!(!fits(&buffer(None), &headers, 1500));
    // What has segments, and can't be read.
    let mut unknown = bytes.clone();
    unknown[14 + 9] = 50;
    let unknown = Bytes {
        segments: Some(Segments {
            count: 3,
            size: 100,
        }),
        ..Bytes::new(&unknown)
    };
    assert!(!fits(&unknown, &headers, u16::MAX));
}
