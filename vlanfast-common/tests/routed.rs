//! What a router does, for any packet.

use proptest::prelude::*;
use vlanfast_common::{Bytes, Hop, Segments, Vid, ends, fits, parse};

/// The ones' complement sum of an IPv4 header, which is 0xffff where its checksum is right (RFC 1071).
fn sum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2);
    let sum = words.fold(0u32, |sum, word| {
        sum + u32::from(u16::from_be_bytes([word[0], word[1]]))
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

    #[test]
    fn no_packet_is_read_past_its_end(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        for kind in [[8, 0], [0x86, 0xdd]] {
            let whole = framed(kind, &bytes);
            let frame = Bytes::new(&whole);
            let headers = parse(&frame);
            if let Some((sender, taker)) = ends(&frame, &headers, Vid::from_tci(10)) {
                // The addresses are in the packet, and the hop leaves one more.
                let hop = Hop::of(&headers).unwrap();
                let at = headers.network + hop.offset();
                let word: [u8; 4] = whole[at..at + 4].try_into().unwrap();
                hop.take(word);
                let length = match taker.version { 4 => 4, _ => 16 };
                let both = [&sender.address[..length], &taker.address[..length]].concat();
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
