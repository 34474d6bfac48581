//! Finds receivers on a device that no link message shows: the device's unicast MAC list (`bridge fdb show`), joined
//! multicast groups, TC filters with actions, and packet sockets. All are of our own network namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
};

use anyhow::Context;
use netlink_packet_core::NLM_F_DUMP;
use nix::errno::Errno;
use vlanfast_common::{Direction, Mac};

use crate::{
    netlink::{
        attrs::{Attributes, Malformed, half, word},
        failure::Failure,
        neighbors::{HEADER, NDA_LLADDR, NUD_PERMANENT},
        query::Netlink,
        request::Request,
    },
    state::snapshot::Ifindex,
};

/// `include/uapi/linux/neighbour.h`.
const NTF_SELF: u8 = 1 << 1;

/// The packet sockets of our namespace (`packet_seq_show`).
const SOCKETS: &str = "/proc/self/net/packet";
/// The IPv6 groups joined on devices of our namespace (`igmp6_mc_seq_show`). A device's multicast filter is not used
/// instead, because it also has the groups of containers' macvlans, which any process there may join.
const GROUPS: &str = "/proc/self/net/igmp6";

/// The unicast MACs that a device accepts beside its own.
pub type List = BTreeSet<Mac>;

/// The packet sockets that are bound to one EtherType.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// A socket is bound to no device and receives on all of them.
    pub all: bool,
    pub devices: BTreeSet<Ifindex>,
}

impl Netlink {
    /// Reads the MAC list of a device; `None` if the kernel reports that there is no such device.
    pub async fn list(&self, ifindex: Ifindex) -> anyhow::Result<Option<List>> {
        let mut header = [0; HEADER];
        header[0] = libc::AF_BRIDGE as u8;
        header[4..8].copy_from_slice(&ifindex.0.to_ne_bytes());
        let request = Request::new(libc::RTM_GETNEIGH, NLM_F_DUMP, &header);
        let (mut list, mut wrong) = (List::default(), None);
        let answered = self.ask(&request, |message| match entry(message.body) {
            _ if message.kind != libc::RTM_NEWNEIGH => wrong = Some("it is of something else"),
            Ok((of, mac)) if of == ifindex => list.extend(mac.filter(|mac| !mac.is_group())),
            Ok(_) => {}
            Err(Malformed(why)) => wrong = Some(why),
        });
        let asked = format!("list the MACs of device {}", ifindex.0);
        let whole = match answered.await {
            Ok(whole) => whole,
            Err(Failure::Refused(Errno::ENODEV, _)) => return Ok(None),
            Err(failure) => return Err(failure.of(&asked)),
        };
        match wrong {
            Some(why) => Err(Failure::Garbled(why).of(&asked)),
            None if whole => Ok(Some(list)),
            None => Err(Failure::Garbled("it is incomplete").of(&asked)),
        }
    }

    /// Whether a TC ingress filter of a device may drop or redirect frames. Filters with our own programs do not count.
    pub async fn is_filtered(&self, ifindex: Ifindex, ours: &[u32]) -> anyhow::Result<bool> {
        let filters = self.filters(ifindex, Direction::Rx).await?;
        let is_ours = |id: Option<u32>| id.is_some_and(|id| ours.contains(&id));
        let mut taking = filters.list.iter().filter(|filter| filter.acts);
        // A filter that cannot be decoded may do anything.
        let takes = taking.any(|filter| !is_ours(filter.program.as_ref().map(|it| it.id)));
        Ok(takes || filters.incomplete)
    }
}

/// Decodes an FDB entry into its device and the MAC that the device accepts permanently. The MAC is `None` for entries
/// of a bridge or a tunnel.
fn entry(body: &[u8]) -> Result<(Ifindex, Option<Mac>), Malformed> {
    let attributes = Attributes::behind(body, HEADER)?;
    let (ifindex, state) = (Ifindex(word(body, 4)?), half(body, 8)?);
    let is_own = body[10] & NTF_SELF != 0 && state & NUD_PERMANENT != 0;
    let mac = attributes.get(NDA_LLADDR).filter(|_| is_own);
    // An address of another length is not an Ethernet address.
    let mac = mac.and_then(|mac| mac.array().map(Mac).ok());
    Ok((ifindex, mac))
}

/// Reads which solicited-node groups were joined on devices of our namespace. Each group is given by its last three
/// bytes.
pub fn groups() -> anyhow::Result<BTreeMap<Ifindex, BTreeSet<u32>>> {
    match fs::read(GROUPS) {
        Ok(table) => Ok(groups_of(&String::from_utf8_lossy(&table))),
        // The kernel has no IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).with_context(|| format!("failed to read {GROUPS}")),
    }
}

/// Parses a table like `2 eth0 ff0200000000000000000001ff123456 1 00000004 0`.
fn groups_of(table: &str) -> BTreeMap<Ifindex, BTreeSet<u32>> {
    /// RFC 4291 clause 2.7.1.
    const SOLICITED: &str = "ff0200000000000000000001ff";
    let mut groups = BTreeMap::<_, BTreeSet<_>>::new();
    for line in table.lines() {
        // A device name has no blanks.
        let mut fields = line.split_ascii_whitespace();
        let device = fields.next().and_then(|text| text.parse().ok());
        let group = fields.nth(1).and_then(|text| text.strip_prefix(SOLICITED));
        let group = group.and_then(|last| u32::from_str_radix(last, 16).ok());
        if let (Some(device), Some(group)) = (device, group) {
            groups.entry(Ifindex(device)).or_default().insert(group);
        }
    }
    groups
}

/// Reads the packet sockets of our namespace.
pub fn sockets() -> anyhow::Result<Sockets> {
    match fs::read_to_string(SOCKETS) {
        Ok(table) => Ok(of_table(&table)),
        // The module af_packet is not loaded.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Sockets::default()),
        Err(error) => Err(error).with_context(|| format!("failed to read {SOCKETS}")),
    }
}

/// Finds the sockets for one EtherType in a table like `sk RefCnt Type Proto Iface …`.
fn of_table(table: &str) -> Sockets {
    /// Slow protocols (LACP), port access control (802.1X) and LLDP. They use groups that bridges never forward (IEEE
    /// 802.1Q-2022 clause 8.6.3), vlanfast passes them, and many hosts always listen to them.
    const OF_THE_LINK: [u16; 3] = [0x8809, 0x888e, 0x88cc];
    /// A socket with the first protocol receives nothing, and one with the second receives everything, as a capture
    /// does.
    const NONE: [u16; 2] = [0, libc::ETH_P_ALL as u16];
    let mut sockets = Sockets::default();
    for line in table.lines().skip(1) {
        let mut fields = line.split_ascii_whitespace().skip(3);
        let protocol = fields.next().map(|text| u16::from_str_radix(text, 16));
        let device = fields.next().map(str::parse);
        match (protocol, device) {
            (Some(Ok(protocol)), _)
                if NONE.contains(&protocol) || OF_THE_LINK.contains(&protocol) => {}
            (Some(Ok(_)), Some(Ok(device @ 1..))) => {
                sockets.devices.insert(Ifindex(device));
            }
            // The socket is bound to no device, or its row cannot be parsed.
            _ => sockets.all = true,
        }
    }
    sockets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbor(family_to_type: [u8; HEADER], mac: &[u8]) -> Vec<u8> {
        let mut body = family_to_type.to_vec();
        body.extend((4 + mac.len() as u16).to_ne_bytes());
        body.extend(NDA_LLADDR.to_ne_bytes());
        body.extend(mac);
        body.resize(body.len().next_multiple_of(4), 0);
        body
    }

    #[test]
    fn an_entry_of_the_devices_own_list_is_told_from_a_bridges_table() {
        let mac = [2, 0, 0, 0, 0, 7];
        let own = [7, 0, 0, 0, 9, 0, 0, 0, 0x80, 0, 2, 0];
        assert_eq!(
            entry(&neighbor(own, &mac)),
            Ok((Ifindex(9), Some(Mac(mac))))
        );
        // Entries are learnt (`NUD_REACHABLE`), belong to the bridge (`NTF_MASTER`), or name the other end of a tunnel.
        for other in [
            neighbor([7, 0, 0, 0, 9, 0, 0, 0, 2, 0, 2, 0], &mac),
            neighbor([7, 0, 0, 0, 9, 0, 0, 0, 0x80, 0, 4, 0], &mac),
            neighbor(own, &[0; 4]),
        ] {
            assert_eq!(entry(&other), Ok((Ifindex(9), None)));
        }
        for length in 0..HEADER {
            assert!(entry(&own[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn only_solicited_node_groups_are_kept() {
        let table = "1    lo              ff020000000000000000000000000001     1 0000000C 0\n\
                     4    eth0.10         ff0200000000000000000001ff010203     1 00000004 0\n\
                     4    eth0.10         ff0500000000000000000001ff010204     1 00000004 0\n\
                     5    \u{fffd}        ff0200000000000000000001ffffffff     2 00000004 0\n";
        let expected = [(4, 0x01_0203), (5, 0xff_ffff)];
        let expected = expected.map(|(device, group)| (Ifindex(device), BTreeSet::from([group])));
        assert_eq!(groups_of(table), BTreeMap::from(expected));
        assert!(groups_of("").is_empty());
    }

    #[test]
    fn sockets_for_one_type_are_distinguished_from_captures() {
        const HEAD: &str = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n";
        let of = |rows: &[(&str, u32)]| {
            let line = |(protocol, device): &(&str, u32)| {
                format!(
                    "00000000a1b2c3d4 3      3    {protocol}   {device}     1 0      0      1\n"
                )
            };
            of_table(&(HEAD.to_owned() + &rows.iter().map(line).collect::<String>()))
        };
        let none = Sockets::default();
        assert_eq!(of(&[]), none);
        assert_eq!(
            of(&[("0003", 2), ("0000", 3), ("88cc", 2), ("8809", 0)]),
            none
        );
        let one = Sockets {
            devices: BTreeSet::from([Ifindex(2), Ifindex(4)]),
            all: false,
        };
        assert_eq!(of(&[("0806", 2), ("88b5", 4), ("0003", 5)]), one);
        assert!(of(&[("0800", 0)]).all);
        assert!(of(&[("xyz", 2)]).all);
    }
}
