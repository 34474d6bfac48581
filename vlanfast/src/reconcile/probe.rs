//! Probes the wire for an address, as a host does before it takes the address itself: by an ARP probe (RFC 5227 clause
//! 2.1.1), or by a neighbour solicitation from the unspecified address (RFC 4862 clause 5.4.2). Neither changes
//! anybody's neighbour cache. The programs record who answers.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::Context;
use vlanfast_common::{NeighborKey, Parent};

const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// The length of the source link-layer address option (RFC 4861 clause 4.6.1).
const OPTION: usize = 8;

/// A packet socket that only sends: with protocol 0 it receives nothing.
pub struct ProbeSocket(OwnedFd);

impl ProbeSocket {
    pub fn open() -> anyhow::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: the call takes no pointers.
        let socket = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        match socket {
            0.. => {
                // SAFETY: the call returned this descriptor, and nobody else has it.
                Ok(Self(unsafe { OwnedFd::from_raw_fd(socket) }))
            }
            _ => Err(io::Error::last_os_error()).context("failed to open a packet socket"),
        }
    }

    /// Probes for an address through the host's device on its VLAN. For IPv6, a second solicitation goes out from the
    /// host's own link-local address, if it has one: a claimant answers it by unicast, and not by multicast (RFC 4861
    /// clause 7.2.4), which could be mistaken for the endpoint's own answer coming back.
    pub fn probe(
        &self,
        parent: &Parent,
        key: &NeighborKey,
        from: Option<Ipv6Addr>,
    ) -> io::Result<()> {
        match key.address() {
            IpAddr::V4(address) => self.send(parent, ARP, &arp(parent.mac, address)),
            IpAddr::V6(address) => {
                let frame = solicitation(parent.mac, Ipv6Addr::UNSPECIFIED, address);
                // A solicitation from the unspecified address must not have the source link-layer address option
                // (clause 4.3).
                self.send(parent, IPV6, &frame[..frame.len() - OPTION])?;
                match from {
                    Some(from) => self.send(parent, IPV6, &solicitation(parent.mac, from, address)),
                    None => Ok(()),
                }
            }
        }
    }

    fn send(&self, parent: &Parent, protocol: u16, frame: &[u8]) -> io::Result<()> {
        let to = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol.to_be(),
            sll_ifindex: parent.ifindex as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        // SAFETY: the kernel reads the frame and the address within the lengths that are passed.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                (&raw const to).cast(),
                size_of_val(&to) as u32,
            )
        };
        match sent {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Builds an ARP probe, which is a request without a sender IP address.
fn arp(mac: [u8; 6], address: Ipv4Addr) -> [u8; 42] {
    let mut frame = [0; 42];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&ARP.to_be_bytes());
    // Hardware type Ethernet, protocol type IPv4, the lengths of their addresses, and the operation "request".
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&mac);
    frame[38..].copy_from_slice(&address.octets());
    frame
}

/// Builds a neighbour solicitation to the solicited-node group of the address (RFC 4291 clause 2.7.1). The source
/// link-layer address option is at its end.
fn solicitation(mac: [u8; 6], from: Ipv6Addr, address: Ipv6Addr) -> [u8; 86] {
    const ICMPV6: u8 = 58;
    let target = address.octets();
    let [.., x, y, z] = target;
    let option = if from.is_unspecified() { 0 } else { OPTION };
    let length = (24 + option) as u8;
    let mut frame = [0; 86];
    frame[..6].copy_from_slice(&[0x33, 0x33, 0xff, x, y, z]);
    frame[6..12].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&IPV6.to_be_bytes());
    // Version, payload length, next header, and hop limit 255, which proves that no router forwarded the packet.
    frame[14] = 6 << 4;
    frame[19..22].copy_from_slice(&[length, ICMPV6, 255]);
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(x),
        u16::from_be_bytes([y, z]),
    );
    frame[22..38].copy_from_slice(&from.octets());
    frame[38..54].copy_from_slice(&group.octets());
    frame[54] = 135;
    frame[62..78].copy_from_slice(&target);
    if option != 0 {
        frame[78..80].copy_from_slice(&[1, 1]);
        frame[80..].copy_from_slice(&mac);
    }
    let words = frame[22..].chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    // The rest of the pseudo-header (RFC 8200 clause 8.1).
    let sum = sum + u32::from(length) + u32::from(ICMPV6);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[56..58].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn a_probe_has_no_sender() {
        let frame = arp(MAC, Ipv4Addr::new(10, 9, 0, 1));
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(frame[22..28], MAC);
        assert_eq!(frame[28..38], [0; 10]);
        assert_eq!(frame[38..], [10, 9, 0, 1]);
    }

    #[test]
    fn a_solicitation_is_for_the_group_of_its_target() {
        let own = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 5);
        for (from, length) in [(Ipv6Addr::UNSPECIFIED, 24), (own, 32)] {
            let frame = solicitation(MAC, from, "fd09::12:3456".parse().unwrap());
            assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
            let group: Ipv6Addr = "ff02::1:ff12:3456".parse().unwrap();
            assert_eq!(frame[38..54], group.octets());
            assert_eq!(frame[22..38], from.octets());
            assert_eq!(frame[19], length);
            // Including the checksum, the words must add up to all ones.
            let words = frame[22..].chunks_exact(2);
            let sum: u32 = words
                .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
                .sum::<u32>()
                + u32::from(length)
                + 58;
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
            // RFC 4861 clause 4.3 forbids the option if the source is unspecified.
            let option = [&[1, 1][..], &MAC].concat();
            assert_eq!(frame[78..] == option, length == 32);
        }
    }
}
