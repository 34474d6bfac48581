//! Who listens on a VLAN beside those that the tables have: takers without an entry, and those who read
//! along. What they listen to is left alone.

use std::collections::BTreeMap;

use vlanfast_common::{Parent, Vid};

use super::snapshot::{Kind, Link, Mode, Network, Nsid, Place};

/// Why a VLAN is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    Port,
    Ipvlan,
    Greedy,
    Nested,
    Promiscuous,
    Guests,
}

impl Listener {
    const ALL: [Self; 6] = [
        Self::Port,
        Self::Ipvlan,
        Self::Greedy,
        Self::Nested,
        Self::Promiscuous,
        Self::Guests,
    ];

    /// Those of a VLAN, or of the trunk itself.
    pub fn of(parent: Parent) -> impl Iterator<Item = Self> {
        let all = Self::ALL.into_iter();
        all.filter(move |listener| parent.has(listener.flag()))
    }

    const fn flag(self) -> u32 {
        match self {
            Self::Port => Parent::PORT,
            Self::Ipvlan => Parent::IPVLAN,
            Self::Greedy => Parent::GREEDY,
            Self::Nested => Parent::NESTED,
            Self::Promiscuous => Parent::PROMISCUOUS,
            Self::Guests => Parent::GUESTS,
        }
    }

    /// The word in `status --json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Ipvlan => "ipvlan",
            Self::Greedy => "greedy",
            Self::Nested => "nested",
            Self::Promiscuous => "promiscuous",
            Self::Guests => "guests",
        }
    }

    /// The same in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Port => "a port of a bridge, bond or switch",
            Self::Ipvlan => "ipvlan",
            Self::Greedy => "a macvlan in mode passthru or source",
            Self::Nested => "a VLAN device inside a container",
            Self::Promiscuous => "read in promiscuous mode",
            Self::Guests => "guests, whose addresses nobody sees",
        }
    }
}

/// Those of a VLAN that are among some flags, in words.
pub fn words(parent: Parent, among: u32) -> String {
    let some = Parent {
        flags: parent.flags & among,
        ..parent
    };
    let words: Vec<_> = Listener::of(some).map(Listener::words).collect();
    words.join(", ")
}

/// The flags that say so, of every VLAN that has any; the parents are the trunk and the 802.1Q devices
/// on it.
pub fn flags(network: &Network, parents: &BTreeMap<Place, Vid>) -> BTreeMap<Vid, u32> {
    let mut flags = BTreeMap::<Vid, u32>::new();
    let mut mark = |vid, more: u32| {
        if more != 0 {
            *flags.entry(vid).or_default() |= more;
        }
    };
    // The devices on top of the parents, and how many of them keep theirs in promiscuous mode.
    let mut takers = BTreeMap::new();
    let mut explained = BTreeMap::<Place, u32>::new();
    for (place, link) in network.links() {
        let Some(lower) = link.lower else { continue };
        let Some(&vid) = parents.get(&lower) else {
            continue;
        };
        *explained.entry(lower).or_default() += u32::from(keeps_promiscuous(link));
        if let Kind::Macvlan(_) | Kind::Macvtap(_) | Kind::Ipvlan = link.kind {
            takers.insert(place, vid);
        }
        mark(vid, of_upper(link));
    }
    for (_, link) in network.links() {
        match (link.kind, link.lower.and_then(|lower| takers.get(&lower))) {
            // Its frames come from the trunk with the tag that it takes off itself.
            (Kind::Vlan(nested), Some(&Vid::UNTAGGED)) if nested != Vid::UNTAGGED => {
                mark(nested, Parent::NESTED);
            }
            (Kind::Ipvlan, Some(&vid)) => mark(vid, Parent::IPVLAN),
            // It takes what is priority-tagged, and its addresses are none of the trunk's.
            (Kind::Vlan(Vid::UNTAGGED), None) if is_on_the_trunk(link, parents) => {
                mark(Vid::UNTAGGED, Parent::NESTED);
            }
            _ => {}
        }
    }
    for (&place, &vid) in parents {
        let Some((_, link)) = network.find(place) else {
            continue;
        };
        // It was moved into a container as it is.
        if place.0 != Nsid::Own {
            mark(vid, Parent::NESTED);
        }
        if link.port {
            mark(vid, Parent::PORT);
        }
        let explained = explained.get(&place).copied().unwrap_or(0)
            + u32::from(link.promiscuity.by_hand)
            + u32::from(link.port)
            + u32::from(filters_nothing(network, place, link));
        if link.promiscuity.count > explained {
            mark(vid, Parent::PROMISCUOUS);
        }
    }
    flags
}

fn is_on_the_trunk(link: &Link, parents: &BTreeMap<Place, Vid>) -> bool {
    let below = link.lower.and_then(|lower| parents.get(&lower));
    below == Some(&Vid::UNTAGGED)
}

/// What a device on top of a parent means for the VLAN.
const fn of_upper(link: &Link) -> u32 {
    match link.kind {
        Kind::Ipvlan => Parent::IPVLAN,
        Kind::Macvlan(mode) => of_mode(mode) | if link.port { Parent::GUESTS } else { 0 },
        Kind::Macvtap(mode) => of_mode(mode) | Parent::GUESTS,
        _ => 0,
    }
}

const fn of_mode(mode: Mode) -> u32 {
    match mode {
        Mode::Passthru | Mode::Source => Parent::GREEDY,
        Mode::Private | Mode::Vepa | Mode::Bridge => 0,
    }
}

/// Whether a device keeps the one below in promiscuous mode while it is up, as
/// `macvlan_change_rx_flags` and `vlan_dev_change_rx_flags` have it; or, in mode passthru, always.
const fn keeps_promiscuous(link: &Link) -> bool {
    link.up
        && match link.kind {
            Kind::Macvlan(Mode::Passthru) | Kind::Macvtap(Mode::Passthru) => true,
            Kind::Vlan(_) | Kind::ServiceVlan | Kind::Macvlan(_) | Kind::Macvtap(_) => {
                link.promiscuity.count > 0
            }
            Kind::Ipvlan | Kind::Other => false,
        }
}

/// Whether a device may be promiscuous only because its driver can't filter by the MACs of the macvlans on
/// it (no `IFF_UNICAST_FLT`, `__dev_set_rx_mode`), which netlink does not show. VLAN devices can.
fn filters_nothing(network: &Network, place: Place, link: &Link) -> bool {
    let below = |upper: &Link| {
        let lower = |place: &Place| network.find(*place)?.1.lower;
        // No more than the kernel stacks (`MAX_NEST_DEV`): two ends of a veth are below each other.
        std::iter::successors(upper.lower, lower).take(8)
    };
    let has_mac_of_its_own = |upper: &Link| match upper.kind {
        Kind::Macvlan(mode) | Kind::Macvtap(mode) => !matches!(mode, Mode::Passthru),
        Kind::Vlan(_) | Kind::ServiceVlan => upper.mac != link.mac,
        Kind::Ipvlan | Kind::Other => false,
    };
    !matches!(link.kind, Kind::Vlan(_))
        && network
            .links()
            .filter(|(_, upper)| upper.up && has_mac_of_its_own(upper))
            .any(|(_, upper)| below(upper).any(|lower| lower == place))
}
