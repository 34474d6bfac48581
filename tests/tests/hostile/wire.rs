//! Byte counts on the wire where buffers of several packets belong to a tunnel, or are segmented by other rules than
//! TCP's. The reference is an independent count at the router, where one frame is one packet.

use std::{
    io::{Read, Write},
    net::{SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, bind, connect, listen,
    setsockopt, socket, sockopt::UdpGsoSegment,
};
use vlanfast_tests::{
    in_the_lab,
    live::trunk::settle,
    net::{
        capture::Sniffer,
        namespace::{Netns, in_netns},
        tally::Sums,
        topology::{WIRE, Wire},
        transfer::transfer_of,
    },
    require,
    run::program::Attached,
};

/// A tunnel between the ends of the wire.
struct Tunnel {
    name: &'static str,
    /// Whether its outer addresses are IPv6.
    outer: Ip,
    /// The arguments of `ip` that create the device `tun`; `LOCAL` and `REMOTE` stand for addresses.
    device: &'static str,
    /// The commands that must run first.
    before: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ip {
    V4,
    V6,
}

const fn tunnel(name: &'static str, outer: Ip, device: &'static str) -> Tunnel {
    Tunnel {
        name,
        outer,
        device,
        before: "true",
    }
}

/// The size of a transfer through a tunnel: it needs buffers of many packets, and takes the lab's CPU little time.
const BULK: usize = 256 << 10;
/// The MTU of a tunnel, with which its outer packets fit the wire.
const MTU: usize = 1380;

/// The tunnels that every kernel here has.
const VXLAN: [Tunnel; 2] = [
    tunnel(
        "VXLAN over IPv4",
        Ip::V4,
        "type vxlan id 5 local LOCAL remote REMOTE dstport 4789",
    ),
    tunnel(
        "VXLAN over IPv6, on another port",
        Ip::V6,
        "type vxlan id 5 local LOCAL remote REMOTE dstport 8472",
    ),
];

/// The tunnels that are modules of Debian's kernels.
const OTHERS: [Tunnel; 12] = [
    tunnel("Geneve", Ip::V4, "type geneve id 5 remote REMOTE"),
    tunnel("Geneve over IPv6", Ip::V6, "type geneve id 5 remote REMOTE"),
    tunnel("GRE", Ip::V4, "type gre local LOCAL remote REMOTE"),
    tunnel(
        "GRE with a key and a checksum",
        Ip::V4,
        "type gre local LOCAL remote REMOTE key 7 csum",
    ),
    tunnel("gretap", Ip::V4, "type gretap local LOCAL remote REMOTE"),
    tunnel("ip6gre", Ip::V6, "type ip6gre local LOCAL remote REMOTE"),
    tunnel("IPIP", Ip::V4, "type ipip local LOCAL remote REMOTE"),
    tunnel("SIT", Ip::V4, "type sit local LOCAL remote REMOTE"),
    tunnel(
        "IPv4 in IPv6",
        Ip::V6,
        "type ip6tnl mode any local LOCAL remote REMOTE encaplimit none",
    ),
    tunnel(
        "IPv4 in IPv6 with an option",
        Ip::V6,
        "type ip6tnl mode any local LOCAL remote REMOTE",
    ),
    Tunnel {
        before: "ip fou add port 5555 ipproto 4",
        ..tunnel(
            "FOU",
            Ip::V4,
            "type ipip local LOCAL remote REMOTE encap fou encap-sport 5556 encap-dport 5555",
        )
    },
    Tunnel {
        before: "ip fou add port 5557 gue",
        ..tunnel(
            "GUE",
            Ip::V4,
            "type gre local LOCAL remote REMOTE encap gue encap-sport 5558 encap-dport 5557",
        )
    },
];

/// The addresses of the ends: the outer one, and an inner one of each IP version.
const HOST: [&str; 4] = ["192.0.2.1", "fd00:1::1", "198.51.100.1", "fd00:2::1"];
const ROUTER: [&str; 4] = ["192.0.2.2", "fd00:1::2", "198.51.100.2", "fd00:2::2"];

/// Gives one end its addresses, and suppresses all traffic but the test's.
fn address(end: &Netns, device: &str, [ipv4, ipv6, ..]: [&str; 4]) {
    end.run(&format!(
        "cd /proc/sys/net/ipv6/conf; \
         for device in default {device}; do \
             echo 0 >$device/router_solicitations; echo 0 >$device/disable_ipv6; \
         done; \
         ip addr add {ipv4}/24 dev {device}; ip addr add {ipv6}/64 dev {device} nodad"
    ))
    .unwrap();
    never_probe(end, device);
}

/// Keeps the kernel from probing known neighbours. A new device does not inherit this from its namespace's `default`,
/// so it is set for each device.
fn never_probe(end: &Netns, device: &str) {
    end.run(&format!(
        "for family in ipv4 ipv6; do \
             echo 600 >/proc/sys/net/$family/neigh/{device}/delay_first_probe_time; \
         done"
    ))
    .unwrap();
}

impl Tunnel {
    fn make(&self, end: &Netns, own: [&str; 4], other: [&str; 4]) {
        let outer = (self.outer == Ip::V6) as usize;
        let device = self
            .device
            .replace("LOCAL", own[outer])
            .replace("REMOTE", other[outer]);
        let [_, _, ipv4, ipv6] = own;
        end.run(&format!(
            "{} && ip link add tun {device} && ip link set tun mtu {MTU} up",
            self.before
        ))
        .unwrap();
        // A tunnel carries one IP version, or both.
        let takes = |line: String| end.run(&line).is_ok();
        let ipv4 = takes(format!("ip addr add {ipv4}/24 dev tun"));
        let ipv6 = takes(format!("ip addr add {ipv6}/64 dev tun nodad"));
        assert!(ipv4 || ipv6, "{} takes no address", self.name);
        never_probe(end, "tun");
    }
}

/// Creates a wire without segmentation offloads: the trunk segments its buffers behind our hook, and the router
/// neither splits nor merges.
fn wire(vid: Option<u16>) -> Wire {
    let wire = Wire::veth().unwrap();
    let ends = match vid {
        Some(vid) => {
            wire.vlan(vid).unwrap();
            [format!("{}.{vid}", wire.trunk), format!("{WIRE}.{vid}")]
        }
        None => [wire.trunk.clone(), WIRE.to_owned()],
    };
    address(&wire.host, &ends[0], HOST);
    address(&wire.router, &ends[1], ROUTER);
    wire.router
        .run(&format!("ethtool -K {WIRE} tso off gso off gro off"))
        .unwrap();
    wire.host
        .run(&format!(
            "ethtool -K {} tso off tx-udp-segmentation off gro on",
            wire.trunk
        ))
        .unwrap();
    // MLD and IGMP reports are sent twice, somewhat late on a busy machine.
    thread::sleep(Duration::from_secs(3));
    wire
}

fn packets(sums: &Sums) -> u64 {
    sums.values().flat_map(|sum| sum.packets).sum()
}

/// Waits until the wire has carried nothing for a while: the last acknowledgements, or a probe for a lost segment,
/// may be late.
fn fall_silent(wire: &Wire) {
    let carried = || {
        ["rx_packets", "tx_packets"]
            .map(|name| Wire::statistic(&wire.host, &wire.trunk, name).unwrap())
    };
    let mut last = carried();
    loop {
        thread::sleep(Duration::from_millis(700));
        let now = carried();
        if now == last {
            return;
        }
        last = now;
    }
}

/// Runs traffic on the wire, and compares the counts to the byte. The traffic must be bulk in both directions.
fn counts_exactly(wire: &Wire, name: &str, least: u64, traffic: impl Fn()) {
    let start = Instant::now();
    // The traffic runs without vlanfast first, which resolves all addresses.
    traffic();
    // The kernel sends two reports for a joined group within the first second.
    thread::sleep(Duration::from_secs(2).saturating_sub(start.elapsed()));
    fall_silent(wire);
    let attached = Attached::start(&wire.host, &wire.trunk, &["--ingress", "tc"]).unwrap();
    let sniffer = Sniffer::start(&wire.router.path(), WIRE).unwrap();
    traffic();
    fall_silent(wire);
    let (at_router, from_router) = sniffer.stop().unwrap();
    assert!(packets(&at_router) > least, "{name}: {at_router:?}");
    println!(
        "{name}: {} packets sent, {} received",
        packets(&at_router),
        packets(&from_router)
    );
    settle(&attached, &from_router, &at_router);
    attached.stop().unwrap();
}

/// Sends bulk both ways through a tunnel, with every IP version that it carries.
fn tunnel_counts_exactly(wire: &Wire, tunnel: &Tunnel) {
    tunnel.make(&wire.host, HOST, ROUTER);
    tunnel.make(&wire.router, ROUTER, HOST);
    counts_exactly(wire, tunnel.name, (BULK / MTU) as u64, || {
        for inner in [2, 3] {
            // SIT carries only IPv6, IPIP and FOU only IPv4.
            let is_taken = match tunnel.name {
                "SIT" => inner == 3,
                "IPIP" | "FOU" => inner == 2,
                _ => true,
            };
            if is_taken {
                transfer_of(BULK, &wire.router, &wire.host, HOST[inner]).unwrap();
                transfer_of(BULK, &wire.host, &wire.router, ROUTER[inner]).unwrap();
            }
        }
    });
    for end in [&wire.host, &wire.router] {
        end.run("ip link del tun").unwrap();
    }
}

#[test]
fn bulk_through_vxlan_counts_as_the_wire_carries_it() {
    require!("vxlan", nix::unistd::geteuid().is_root(), "needs root");
    let wire = wire(None);
    for tunnel in &VXLAN {
        tunnel_counts_exactly(&wire, tunnel);
    }
}

/// The test uses `UDP_SEGMENT`: one buffer of many datagrams. Their content resembles a tunnel's.
#[test]
fn segmented_datagrams_count_as_the_wire_carries_them() {
    require!("udp gso", nix::unistd::geteuid().is_root(), "needs root");
    const SIZE: i32 = 1000;
    let vxlan = [&[8, 0, 0, 0, 0, 0, 5, 0][..], &[2; 12], &[8, 0, 0x45]].concat();
    let wire = wire(None);
    for start in [&b"x"[..], &vxlan, &[0x45, 0, 0, 0]] {
        counts_exactly(&wire, "UDP", 400, || {
            let receiver = in_netns(&wire.router.path(), || {
                Ok(UdpSocket::bind((ROUTER[0], 9000))?)
            });
            let sender =
                in_netns(&wire.host.path(), || Ok(UdpSocket::bind((HOST[0], 0))?)).unwrap();
            setsockopt(&sender, UdpGsoSegment, &SIZE).unwrap();
            let mut content = start.to_vec();
            content.resize(10 * SIZE as usize + 1, b'x');
            for _ in 0..50 {
                sender.send_to(&content, (ROUTER[0], 9000)).unwrap();
            }
            // The socket stays open for a while, so that the kernel sends no port unreachable message.
            thread::sleep(Duration::from_millis(200));
            drop(receiver.unwrap());
        });
    }
}

/// Creates a one-to-one SCTP socket, which is read and written like a TCP socket.
fn sctp_socket() -> Result<OwnedFd> {
    let (family, kind, flags) = (AddressFamily::Inet, SockType::Stream, SockFlag::empty());
    Ok(socket(family, kind, flags, SockProtocol::Sctp)?)
}

/// Sends messages of many sizes over SCTP, and counts what arrives.
fn sctp_transfer(from: &Netns, to: &Netns, address: &str) {
    let address = SockaddrIn::from(SocketAddrV4::new(address.parse().unwrap(), 5002));
    let listener = in_netns(&to.path(), move || {
        let socket = sctp_socket()?;
        bind(socket.as_raw_fd(), &address)?;
        listen(&socket, Backlog::new(1)?)?;
        Ok(TcpListener::from(socket))
    })
    .unwrap();
    let reader = thread::spawn(move || {
        let mut read = vec![];
        listener.accept().unwrap().0.read_to_end(&mut read).unwrap();
        read.len()
    });
    let mut stream = in_netns(&from.path(), move || {
        let socket = sctp_socket()?;
        connect(socket.as_raw_fd(), &address)?;
        Ok(TcpStream::from(socket))
    })
    .unwrap();
    let sizes = (1..=400).map(|number| number * 37 % 20_000 + 1);
    for size in sizes.clone() {
        stream.write_all(&vec![7; size]).unwrap();
    }
    drop(stream);
    assert_eq!(reader.join().unwrap(), sizes.sum::<usize>());
}

/// The frames are tagged, which needs 802.1Q; only the lab has it for certain.
mod tagged {
    use super::*;

    #[test]
    fn bulk_through_any_tunnel_on_a_vlan_counts_as_the_wire_carries_it() {
        in_the_lab!("tunnels");
        let wire = wire(Some(10));
        for tunnel in VXLAN.iter().chain(&OTHERS) {
            tunnel_counts_exactly(&wire, tunnel);
        }
    }

    /// The buffer is a list of fragments, which are packets of any size.
    #[test]
    fn sctp_counts_as_the_wire_carries_it() {
        in_the_lab!("sctp");
        let wire = wire(Some(10));
        wire.host
            .run(&format!(
                "ethtool -K {} tx-sctp-segmentation off",
                wire.trunk
            ))
            .unwrap();
        counts_exactly(&wire, "SCTP", 1000, || {
            sctp_transfer(&wire.host, &wire.router, ROUTER[0]);
        });
    }
}
