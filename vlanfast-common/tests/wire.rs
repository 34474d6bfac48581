//! How much a buffer is on the wire: every header in front of the payload, as each packet carries it.

use proptest::prelude::*;
use vlanfast_common::{Bytes, Protocol, Segments, Wire, parse, wire};

/// A header, and what can stand behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Ethernet,
    Tag,
    Label,
    Ipv4,
    Ipv6,
    Options,
    Ah,
    /// Checksum, key, sequence number.
    Gre(bool, bool, bool),
    Udp,
    /// Words of options.
    Geneve(u8),
    Vxlan,
    VxlanGpe,
    Gue(u8),
    Tcp,
    Sctp,
}
use Layer::*;

const GRE: Layer = Gre(false, false, false);

/// Makes a buffer from the inside out, so that every length is known when it is written.
fn buffer(layers: &[Layer], payload: Vec<u8>) -> Vec<u8> {
    let inner = |index: usize| layers.get(index + 1).copied();
    let pairs = layers.iter().enumerate().rev();
    pairs.fold(payload, |behind, (index, layer)| {
        [header(*layer, inner(index), &behind), behind].concat()
    })
}

fn header(layer: Layer, inner: Option<Layer>, behind: &[u8]) -> Vec<u8> {
    let ether_type = ether_type(inner).to_be_bytes();
    let protocol = protocol(inner);
    let length = |more: usize| {
        u16::try_from(behind.len() + more)
            .unwrap_or(0)
            .to_be_bytes()
    };
    match layer {
        Ethernet => [
            &[2, 0x42, 10, 0, 0, 2, 2, 0x42, 10, 0, 0, 3],
            &ether_type[..],
        ]
        .concat(),
        Tag => [&[0x20, 10], &ether_type[..]].concat(),
        Label => vec![0, 6, 0x40 | u8::from(inner != Some(Label)), 64],
        Ipv4 => {
            let mut header = [&[0x46, 0], &length(24)[..], &[0, 0, 0, 0, 64, protocol]].concat();
            header.resize(24, 1);
            header
        }
        Ipv6 => {
            let mut header = [&[0x60, 0, 0, 0], &length(0)[..], &[protocol, 64]].concat();
            header.resize(40, 1);
            header
        }
        Options => vec![protocol, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        Ah => [vec![protocol, 4, 0, 0], vec![7; 20]].concat(),
        Gre(checksum, key, sequence) => {
            let flags = u8::from(checksum) << 7 | u8::from(key) << 5 | u8::from(sequence) << 4;
            let words = [checksum, key, sequence].iter().filter(|&&has| has).count();
            [&[flags, 0], &ether_type[..], &vec![9; words * 4]].concat()
        }
        Udp => [&[0x12, 0x34, 0x56, 0x78], &length(8)[..], &[0, 0]].concat(),
        Geneve(words) => [
            &[words, 0],
            &ether_type[..],
            &[0, 0, 5, 0],
            &vec![3; words as usize * 4],
        ]
        .concat(),
        Vxlan => vec![8, 0, 0, 0, 0, 0, 5, 0],
        VxlanGpe => {
            let next = match inner {
                Some(Ipv4) => 1,
                Some(Ipv6) => 2,
                Some(Ethernet) => 3,
                _ => 5,
            };
            vec![0x0c, 0, 0, next, 0, 0, 5, 0]
        }
        Gue(words) => [vec![words, protocol, 0, 0], vec![0; words as usize * 4]].concat(),
        Tcp => [vec![0; 12], vec![0x80], vec![0; 19]].concat(),
        Sctp => vec![0; 12],
    }
}

fn ether_type(inner: Option<Layer>) -> u16 {
    match inner {
        Some(Tag) => 0x8100,
        Some(Label) => 0x8847,
        Some(Ipv4) => 0x0800,
        Some(Ipv6) => 0x86dd,
        Some(Ethernet) => 0x6558,
        _ => 0,
    }
}

fn protocol(inner: Option<Layer>) -> u8 {
    match inner {
        Some(Ipv4) => 4,
        Some(Ipv6) => 41,
        Some(Gre(..)) => 47,
        Some(Udp) => 17,
        Some(Tcp) => 6,
        Some(Sctp) => 132,
        Some(Options) => 60,
        Some(Ah) => 51,
        Some(Label) => 137,
        Some(Ethernet) => 143,
        _ => 253,
    }
}

/// What the kernel makes of a buffer: packets with all the headers, each with its part of the payload.
fn split(layers: &[Layer], parts: &[usize]) -> Wire {
    let bytes = parts
        .iter()
        .map(|&part| buffer(layers, vec![0; part]).len());
    Wire {
        packets: parts.len() as u64,
        bytes: bytes.sum::<usize>() as u64,
    }
}

/// Counts a buffer that is split in parts of one size but for the last.
fn counted(layers: &[Layer], payload: Vec<u8>, size: usize) -> Wire {
    let segments = Segments {
        count: 0,
        size: size as u32,
    };
    by_segments(&buffer(layers, payload), segments)
}

fn by_segments(bytes: &[u8], segments: Segments) -> Wire {
    let frame = Bytes {
        segments: Some(segments),
        ..Bytes::new(bytes)
    };
    wire(&frame, &parse(&frame))
}

/// Every tunnel that Linux splits buffers for.
fn tunnels() -> Vec<Vec<Layer>> {
    let on_ip: [&[Layer]; 8] = [
        &[],
        &[Ipv4],
        &[Ipv6],
        &[GRE, Ipv4],
        &[Gre(true, true, true), Ipv6],
        &[GRE, Ethernet, Ipv4],
        &[Gre(false, true, false), Ethernet, Tag, Ipv6],
        &[Label, Ipv4],
    ];
    let on_udp: [&[Layer]; 18] = [
        &[Ipv4],
        &[Ipv6],
        &[GRE, Ipv4],
        &[GRE, Ethernet, Ipv4],
        &[Gre(true, true, false), Ethernet, Tag, Ipv4],
        &[Gre(false, true, false), Ipv6],
        &[Geneve(0), Ethernet, Ipv4],
        &[Geneve(3), Ethernet, Tag, Ipv6],
        &[Geneve(8), Ipv4],
        &[Geneve(63), Ipv6],
        &[Vxlan, Ethernet, Ipv4],
        &[Vxlan, Ethernet, Tag, Ipv6],
        &[VxlanGpe, Ipv4],
        &[VxlanGpe, Ipv6],
        &[VxlanGpe, Ethernet, Ipv4],
        &[Gue(0), Ipv4],
        &[Gue(2), Ipv6],
        &[Label, Label, Ipv4],
    ];
    let on_udp = on_udp.map(|layers| [&[Udp], layers].concat());
    [&on_ip.map(<[_]>::to_vec)[..], &on_udp].concat()
}

/// What a tunnel can be on.
const OUTER: [&[Layer]; 6] = [
    &[Ethernet, Ipv4],
    &[Ethernet, Ipv6],
    &[Ethernet, Tag, Ipv4],
    &[Ethernet, Tag, Ipv6, Options],
    &[Ethernet, Ipv4, Ah],
    &[Ethernet, Label, Ipv6],
];

/// Up to two tunnels, the innermost header IP's.
fn all_stacks() -> impl Iterator<Item = Vec<Layer>> {
    let outer = OUTER.iter().flat_map(|outer| {
        let tunnels = tunnels().into_iter();
        tunnels.map(move |tunnel| [outer, &tunnel[..]].concat())
    });
    outer.flat_map(|outer| {
        let inner = tunnels().into_iter().step_by(3);
        inner.map(move |tunnel| [&outer[..], &tunnel].concat())
    })
}

#[test]
fn two_tunnels_deep_every_packet_has_all_the_headers() {
    for stack in all_stacks() {
        for transport in [Tcp, Udp] {
            let layers = [&stack[..], &[transport]].concat();
            let split = split(&layers, &[1000, 1000, 1]);
            assert_eq!(counted(&layers, vec![0; 2001], 1000), split, "{layers:?}");
        }
    }
}

#[test]
fn sctp_is_split_by_fragments_which_the_kernel_counts() {
    for stack in all_stacks() {
        let layers = [&stack[..], &[Sctp]].concat();
        let segments = Segments {
            count: 3,
            size: Segments::BY_FRAGMENTS,
        };
        let counted = by_segments(&buffer(&layers, vec![0; 2444]), segments);
        assert_eq!(counted, split(&layers, &[1400, 40, 1004]), "{layers:?}");
    }
    // RFC 6951.
    let layers = [Ethernet, Ipv6, Udp, Sctp];
    let segments = Segments {
        count: 2,
        size: Segments::BY_FRAGMENTS,
    };
    let counted = by_segments(&buffer(&layers, vec![0; 2000]), segments);
    assert_eq!(counted, split(&layers, &[1400, 600]));
}

/// `UDP_SEGMENT` splits the outer datagram: its payload is not one packet of a tunnel, but several.
#[test]
fn datagrams_that_each_hold_a_packet_of_a_tunnel_are_split_behind_their_own_header() {
    for tunnel in tunnels()
        .into_iter()
        .filter(|layers| layers.starts_with(&[Udp]))
    {
        let inside = buffer(&[&tunnel[1..], &[Tcp]].concat(), vec![0; 500]);
        let layers = [Ethernet, Ipv4, Udp];
        let split = split(&layers, &[inside.len(); 3]);
        let counted = counted(&layers, inside.repeat(3), inside.len());
        assert_eq!(counted, split, "{tunnel:?}");
    }
}

#[test]
fn datagrams_that_look_like_labels_without_end_are_payload() {
    let layers = [Ethernet, Ipv4, Udp];
    let split = split(&layers, &[1000, 1000, 1000]);
    assert_eq!(counted(&layers, vec![b'x'; 3000], 1000), split);
}

#[test]
fn the_tag_counts_in_every_packet_wherever_it_is() {
    let inner = [Ipv4, Udp, Vxlan, Ethernet, Ipv6, Tcp];
    let tagged = [&[Ethernet, Tag][..], &inner].concat();
    let split = split(&tagged, &[1000, 1000, 500]);
    assert_eq!(counted(&tagged, vec![0; 2500], 1000), split);
    let stripped = buffer(&[&[Ethernet][..], &inner].concat(), vec![0; 2500]);
    let frame = Bytes {
        stripped_tag: Some(vlanfast_common::Tag {
            tpid: vlanfast_common::Tag::C_TAG,
            tci: 10,
        }),
        segments: Some(Segments {
            count: 3,
            size: 1000,
        }),
        ..Bytes::new(&stripped)
    };
    assert_eq!(wire(&frame, &parse(&frame)), split);
}

/// The SA alone knows what is behind SPI and sequence number, and what follows the payload.
#[test]
fn esp_has_the_kernels_count_and_the_headers_that_can_be_read() {
    let mut bytes = buffer(&[Ethernet, Ipv4], vec![0; 3000]);
    bytes[14 + 9] = 50;
    let segments = Segments {
        count: 3,
        size: 900,
    };
    let headers = 14 + 24 + 8;
    let expected = Wire {
        packets: 3,
        bytes: bytes.len() as u64 + 2 * headers,
    };
    assert_eq!(by_segments(&bytes, segments), expected);
}

#[test]
fn big_tcp_in_a_tunnel_counts_as_it_is_sent() {
    let layers = [Ethernet, Ipv4, Udp, Vxlan, Ethernet, Ipv4, Tcp];
    let parts = [1000; 70];
    assert_eq!(
        counted(&layers, vec![0; 70_000], 1000),
        split(&layers, &parts)
    );
}

fn layer() -> impl Strategy<Value = Layer> {
    prop_oneof![
        Just(Ethernet),
        Just(Tag),
        Just(Label),
        Just(Ipv4),
        Just(Ipv6),
        Just(Options),
        Just(Ah),
        any::<(bool, bool, bool)>().prop_map(|(a, b, c)| Gre(a, b, c)),
        Just(Udp),
        (0u8..64).prop_map(Geneve),
        Just(Vxlan),
        Just(VxlanGpe),
        (0u8..32).prop_map(Gue),
        Just(Tcp),
        Just(Sctp),
    ]
}

proptest! {
    /// Whatever a sender makes up, a count is that of its own buffer, and has bounds.
    #[test]
    fn any_headers_have_a_bounded_count(
        layers in prop::collection::vec(layer(), 0..20),
        payload in prop::collection::vec(any::<u8>(), 0..300),
        broken in any::<(prop::sample::Index, u8)>(),
        count in any::<u16>(),
        size in any::<u16>(),
    ) {
        let mut bytes = buffer(&[&[Ethernet][..], &layers].concat(), payload);
        let index = broken.0.index(bytes.len());
        bytes[index] ^= broken.1;
        let segments = Segments { count: count.into(), size: size.into() };
        let wire = by_segments(&bytes, segments);
        let len = bytes.len() as u64;
        prop_assert!((1..=len.max(count.into())).contains(&wire.packets));
        // Each BIG TCP header may have eight bytes that are not sent.
        prop_assert!(wire.bytes + 8 * 16 >= len);
        prop_assert!(wire.bytes <= len * wire.packets);
    }

    /// More payload is never less on the wire.
    #[test]
    fn more_payload_counts_more(
        stack in prop::sample::select(all_stacks().collect::<Vec<_>>()),
        payload in 1usize..5000,
        more in 0usize..2000,
        size in 1usize..3000,
    ) {
        let layers = [&stack[..], &[Tcp]].concat();
        let less = counted(&layers, vec![0; payload], size);
        let more = counted(&layers, vec![0; payload + more], size);
        prop_assert!(less.packets <= more.packets && less.bytes <= more.bytes);
    }

    /// Random datagrams are no tunnels.
    #[test]
    fn plain_datagrams_are_split_behind_their_header(
        payload in prop::collection::vec(any::<u8>(), 1..4000),
        size in 1usize..1500,
    ) {
        let layers = [Ethernet, Ipv6, Udp];
        let parts: Vec<_> = payload.chunks(size).map(<[u8]>::len).collect();
        prop_assert_eq!(counted(&layers, payload, size), split(&layers, &parts));
    }
}

#[test]
fn lengths_of_802_3_are_no_protocols() {
    for number in [0u8, 4, 6, 17, 41, 47] {
        let mut bytes = buffer(&[Ethernet], vec![0x45; 3000]);
        bytes[13] = number;
        assert_ne!(parse(&Bytes::new(&bytes)).protocol, Protocol::IPV4);
        let segments = Segments {
            count: 3,
            size: 1000,
        };
        let expected = Wire {
            packets: 3,
            bytes: 3014 + 2 * 14,
        };
        assert_eq!(by_segments(&bytes, segments), expected);
    }
}
