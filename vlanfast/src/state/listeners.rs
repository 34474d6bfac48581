//! Finds listeners: receivers on a VLAN that have no entry in the tables, and programs that read its traffic. vlanfast
//! backs off from such a VLAN.

use std::collections::{BTreeMap, BTreeSet};

use vlanfast_common::{Parent, Vid};

use super::snapshot::{DeviceId, Link, LinkKind, Mode, Nsid, Snapshot};
use crate::state::hidden_receivers;

/// The reasons to back off from a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    Port,
    Ipvlan,
    CatchAll,
    Nested,
    Promiscuous,
    Guests,
    Filters,
    Sockets,
    Unseen,
    Source,
}

impl Listener {
    const ALL: [Self; 10] = [
        Self::Port,
        Self::Ipvlan,
        Self::CatchAll,
        Self::Nested,
        Self::Promiscuous,
        Self::Guests,
        Self::Filters,
        Self::Sockets,
        Self::Unseen,
        Self::Source,
    ];

    /// Returns the listeners of a VLAN, or of the trunk itself.
    pub fn of(parent: Parent) -> impl Iterator<Item = Self> {
        let all = Self::ALL.into_iter();
        all.filter(move |listener| parent.has(listener.flag()))
    }

    const fn flag(self) -> u32 {
        match self {
            Self::Port => Parent::PORT,
            Self::Ipvlan => Parent::IPVLAN,
            Self::CatchAll => Parent::CATCH_ALL,
            Self::Nested => Parent::NESTED,
            Self::Promiscuous => Parent::PROMISCUOUS,
            Self::Guests => Parent::GUESTS,
            Self::Filters => Parent::FILTERS,
            Self::Sockets => Parent::SOCKETS,
            Self::Unseen => Parent::UNSEEN,
            Self::Source => Parent::SOURCE,
        }
    }

    /// Returns the name in `status --json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Ipvlan => "ipvlan",
            Self::CatchAll => "greedy",
            Self::Nested => "nested",
            Self::Promiscuous => "promiscuous",
            Self::Guests => "guests",
            Self::Filters => "filters",
            Self::Sockets => "sockets",
            Self::Unseen => "unseen",
            Self::Source => "source",
        }
    }

    /// Returns the description in `status`.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Port => "a port of a bridge, bond or switch",
            Self::Ipvlan => "ipvlan",
            Self::CatchAll => "a macvlan in mode passthru",
            Self::Nested => "a VLAN device inside a container",
            Self::Promiscuous => "read in promiscuous mode",
            Self::Guests => "guests, whose addresses are not visible",
            Self::Filters => "a tc filter with an action, or another program",
            Self::Sockets => "a packet socket for one EtherType",
            Self::Unseen => "a receiver that no network namespace shows",
            Self::Source => "a macvlan in mode source",
        }
    }
}

/// Describes the listeners of a VLAN that are among some flags.
pub fn words(parent: Parent, among: u32) -> String {
    let some = Parent {
        flags: parent.flags & among,
        ..parent
    };
    let words: Vec<_> = Listener::of(some).map(Listener::words).collect();
    words.join(", ")
}

/// Computes the flags of every VLAN with listeners. The parents are the trunk and the 802.1Q devices on it.
pub fn flags(snapshot: &Snapshot, parents: &BTreeMap<DeviceId, Vid>) -> BTreeMap<Vid, u32> {
    let mut flags = Flags::default();
    mark_uppers(snapshot, parents, &mut flags);
    mark_nested(snapshot, parents, &mut flags);
    mark_parents(snapshot, parents, &mut flags);
    mark_receivers(snapshot, parents, &mut flags);
    flags.0
}

#[derive(Default)]
struct Flags(BTreeMap<Vid, u32>);

impl Flags {
    fn mark(&mut self, vid: Vid, more: u32) {
        if more != 0 {
            *self.0.entry(vid).or_default() |= more;
        }
    }
}

/// Marks listeners among the devices on top of the parents.
fn mark_uppers(snapshot: &Snapshot, parents: &BTreeMap<DeviceId, Vid>, flags: &mut Flags) {
    for (_, link) in snapshot.links() {
        let vid = link.lower.and_then(|lower| parents.get(&lower));
        if let Some(&vid) = vid {
            flags.mark(vid, of_upper(link));
        }
    }
}

/// Marks VLAN devices that take off the tag of frames from the trunk itself.
fn mark_nested(snapshot: &Snapshot, parents: &BTreeMap<DeviceId, Vid>, flags: &mut Flags) {
    let own: BTreeSet<Vid> = parents.values().copied().collect();
    for (_, link) in snapshot.links() {
        let (LinkKind::Vlan(vid), Some(lower)) = (link.kind, link.lower) else {
            continue;
        };
        let is_on_a_receiver = || {
            let lower = snapshot.find(lower).map(|(_, lower)| lower);
            lower.is_some_and(|lower| {
                matches!(lower.kind, LinkKind::Macvlan(_) | LinkKind::Macvtap(_))
                    && is_on_the_trunk(lower, parents)
            })
        };
        // A VLAN device with VID 0 receives priority-tagged frames, and its addresses do not belong to the trunk.
        let is_priority = vid == Vid::UNTAGGED && is_on_the_trunk(link, parents);
        // If the trunk has a device of its own for the VLAN, that one receives the frames before a macvlan does
        // (`vlan_do_receive`).
        if is_priority || !own.contains(&vid) && is_on_a_receiver() {
            flags.mark(vid, Parent::NESTED);
        }
    }
}

/// Marks listeners that use the parents themselves.
fn mark_parents(snapshot: &Snapshot, parents: &BTreeMap<DeviceId, Vid>, flags: &mut Flags) {
    // For each device, the number of upper devices that keep it in promiscuous mode.
    let mut explained = BTreeMap::<DeviceId, u32>::new();
    for (_, link) in snapshot.links() {
        if let Some(lower) = link.lower {
            *explained.entry(lower).or_default() += u32::from(keeps_promiscuous(link));
        }
    }
    for (&device, &vid) in parents {
        let Some((_, link)) = snapshot.find(device) else {
            continue;
        };
        // The parent itself was moved into a container.
        if device.0 != Nsid::Own {
            flags.mark(vid, Parent::NESTED);
        }
        if link.port {
            flags.mark(vid, Parent::PORT);
        }
        let explained = explained.get(&device).copied().unwrap_or(0)
            + u32::from(link.promiscuity.by_hand)
            + u32::from(link.port)
            + u32::from(filters_nothing(snapshot, device, link));
        if link.promiscuity.count > explained {
            flags.mark(vid, Parent::PROMISCUOUS);
        }
    }
}

/// Marks receivers that are not devices, or whose devices are not visible.
fn mark_receivers(snapshot: &Snapshot, parents: &BTreeMap<DeviceId, Vid>, flags: &mut Flags) {
    /// On the trunk, these receive frames before the devices of all VLANs do.
    const OF_ALL: u32 = Parent::FILTERS | Parent::SOCKETS;
    let unexplained = hidden_receivers::unexplained(snapshot, &snapshot.receivers);
    for (&(nsid, ifindex), &vid) in parents {
        let (Nsid::Own, Some(found)) = (nsid, snapshot.receivers.get(&ifindex)) else {
            continue;
        };
        // A bridge adds the MACs behind its other ports to the list.
        let is_port = snapshot
            .find((nsid, ifindex))
            .is_some_and(|(_, link)| link.port);
        let is_unseen = unexplained.contains(&ifindex) && !is_port;
        for (holds, flag) in [
            (found.filters, Parent::FILTERS),
            (found.sockets, Parent::SOCKETS),
            (is_unseen, Parent::UNSEEN),
        ] {
            flags.mark(vid, if holds { flag } else { 0 });
        }
    }
    let of_trunk = flags.0.get(&Vid::UNTAGGED).copied().unwrap_or_default();
    for &vid in parents.values() {
        flags.mark(vid, of_trunk & OF_ALL);
    }
}

fn is_on_the_trunk(link: &Link, parents: &BTreeMap<DeviceId, Vid>) -> bool {
    let below = link.lower.and_then(|lower| parents.get(&lower));
    below == Some(&Vid::UNTAGGED)
}

/// Returns the flags of a VLAN for a device on top of its parent.
const fn of_upper(link: &Link) -> u32 {
    match link.kind {
        LinkKind::Ipvlan => Parent::IPVLAN,
        LinkKind::Macvlan(mode) => of_mode(mode) | if link.port { Parent::GUESTS } else { 0 },
        LinkKind::Macvtap(mode) => of_mode(mode) | Parent::GUESTS,
        _ => 0,
    }
}

const fn of_mode(mode: Mode) -> u32 {
    match mode {
        Mode::Passthru => Parent::CATCH_ALL,
        // The kernel selects by the sender's MAC, which vlanfast never changes (`macvlan_forward_source`).
        Mode::Source => Parent::SOURCE,
        Mode::Private | Mode::Vepa | Mode::Bridge => 0,
    }
}

/// Whether a device keeps its lower device in promiscuous mode. A device that is promiscuous itself does so while it is
/// up (`macvlan_change_rx_flags`, `vlan_dev_change_rx_flags`), and a macvlan in mode passthru always.
const fn keeps_promiscuous(link: &Link) -> bool {
    link.up
        && match link.kind {
            LinkKind::Macvlan(Mode::Passthru) | LinkKind::Macvtap(Mode::Passthru) => true,
            LinkKind::Vlan(_)
            | LinkKind::ServiceVlan
            | LinkKind::Macvlan(_)
            | LinkKind::Macvtap(_) => link.promiscuity.count > 0,
            LinkKind::Ipvlan | LinkKind::Other => false,
        }
}

/// Whether a device may be promiscuous only because its driver cannot filter by the MACs of the macvlans on it (no
/// `IFF_UNICAST_FLT`, `__dev_set_rx_mode`). Netlink does not show that. VLAN devices can always filter.
fn filters_nothing(snapshot: &Snapshot, device: DeviceId, link: &Link) -> bool {
    let below = |upper: &Link| {
        let lower = |device: &DeviceId| snapshot.find(*device)?.1.lower;
        // The depth is the kernel's limit for stacked devices (`MAX_NEST_DEV`). The two ends of a veth are each other's
        // lower devices.
        std::iter::successors(upper.lower, lower).take(8)
    };
    let has_mac_of_its_own = |upper: &Link| match upper.kind {
        LinkKind::Macvlan(mode) | LinkKind::Macvtap(mode) => !matches!(mode, Mode::Passthru),
        LinkKind::Vlan(_) | LinkKind::ServiceVlan => upper.mac != link.mac,
        LinkKind::Ipvlan | LinkKind::Other => false,
    };
    let has_list = match (device.0, snapshot.receivers.get(&device.1)) {
        (Nsid::Own, Some(receivers)) => !receivers.unicast.is_empty(),
        _ => false,
    };
    let mut uppers = snapshot
        .links()
        .filter(|(_, upper)| upper.up && has_mac_of_its_own(upper));
    !matches!(link.kind, LinkKind::Vlan(_))
        && (has_list || uppers.any(|(_, upper)| below(upper).any(|lower| lower == device)))
}
