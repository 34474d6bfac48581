//! Merges a dump of a namespace, which may be incomplete, with what was known before. This module is pure.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    netlink::{decode, decode::Undecodable, query::Message},
    state::snapshot::{Ifindex, Namespace, Nsid},
};

/// The parts that may be missing from a dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Anything may be missing: there was a change during the dump, or a message was truncated or named no device.
    pub anything: bool,
    /// Something about these devices is missing.
    pub of: BTreeSet<Ifindex>,
    /// The reason for the first message that could not be decoded.
    pub why: Option<&'static str>,
}

impl Missing {
    pub fn is_nothing(&self) -> bool {
        !self.anything && self.of.is_empty()
    }

    /// Whether the only reason for incompleteness is a change during the dump.
    pub fn is_interrupted(&self) -> bool {
        self.of.is_empty() && self.why.is_none()
    }

    /// Whether something about this device may be missing.
    pub fn may_be_of(&self, ifindex: Ifindex) -> bool {
        self.anything || self.of.contains(&ifindex)
    }

    pub fn record(&mut self, undecodable: Undecodable) {
        self.why = self.why.or(Some(undecodable.why));
        match undecodable.ifindex {
            Some(ifindex) => {
                self.of.insert(ifindex);
            }
            None => self.anything = true,
        }
    }

    /// Records whether an answer was complete.
    pub const fn record_answer(&mut self, whole: bool) {
        self.anything |= !whole;
    }
}

/// The result of dumping the devices and addresses of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceDump {
    pub namespace: Namespace,
    pub links: Missing,
    pub addresses: Missing,
}

impl NamespaceDump {
    /// Adds a message from a dump of devices.
    pub fn link(&mut self, nsid: Nsid, message: Message<'_>, stands_for: impl Fn(i32) -> Nsid) {
        if message.kind != libc::RTM_NEWLINK {
            return self.links.record(STRANGE);
        }
        match decode::device(message.body) {
            Ok(device) => {
                let ifindex = device.ifindex;
                let link = device.link(nsid, stands_for);
                self.namespace.links.insert(ifindex, link);
                self.namespace.addresses.entry(ifindex).or_default();
            }
            Err(undecodable) => self.links.record(undecodable),
        }
    }

    /// Adds a message from a dump of addresses.
    pub fn address(&mut self, message: Message<'_>) {
        if message.kind != libc::RTM_NEWADDR {
            return self.addresses.record(STRANGE);
        }
        match decode::address(message.body) {
            Ok(Some((ifindex, address))) => {
                let addresses = self.namespace.addresses.entry(ifindex).or_default();
                addresses.push(address);
            }
            Ok(None) => {}
            Err(undecodable) => self.addresses.record(undecodable),
        }
    }

    pub fn is_whole(&self) -> bool {
        self.links.is_nothing() && self.addresses.is_nothing()
    }

    /// Merges this dump into what was known before. A known device or address is removed only if the dump is complete
    /// enough to have shown it.
    pub fn merge_into(self, old: Option<&Namespace>) -> Namespace {
        let mut new = self.namespace;
        let Some(old) = old else { return new };
        for (ifindex, link) in &old.links {
            if self.links.may_be_of(*ifindex) {
                new.links.entry(*ifindex).or_insert_with(|| link.clone());
            }
        }
        for (ifindex, known) in &old.addresses {
            let is_kept = self.links.may_be_of(*ifindex) && !new.addresses.contains_key(ifindex);
            if is_kept || self.addresses.may_be_of(*ifindex) {
                join(new.addresses.entry(*ifindex).or_default(), known);
            }
        }
        new
    }
}

/// The error for a message of an unexpected type.
const STRANGE: Undecodable = Undecodable {
    ifindex: None,
    why: "it has an unexpected type",
};

/// Adds the addresses that are not in the list yet, of which there may be thousands.
pub fn join(addresses: &mut Vec<IpAddr>, known: &[IpAddr]) {
    let there: BTreeSet<_> = addresses.iter().copied().collect();
    addresses.extend(known.iter().filter(|address| !there.contains(address)));
}

#[cfg(test)]
mod tests;
