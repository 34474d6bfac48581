//! Address conflict detection (RFC 5227) for addresses that endpoints chose themselves. Such an address is probed on
//! the wire before it is trusted, and while a station there answers, it belongs to that station. This module is pure;
//! times are of CLOCK_MONOTONIC.

use std::{collections::BTreeMap, time::Duration};

use vlanfast_common::{Claim, Neighbor, NeighborKey, Parent, Vid};

use crate::state::{quotas::Owner, tables::DesiredTables};

/// The number of probes before silence counts, the pause between them, and how long after the last one an answer may
/// take.
const TIMES: u8 = 2;
const SPACE: Duration = Duration::from_millis(50);
const WAIT: Duration = Duration::from_millis(100);
/// How often a claimant is probed again. The first probe is immediate, because an announcement may be old or forged.
const REPEAT: Duration = Duration::from_secs(10);
/// A claimant that does not answer this many probes, a second apart, is gone (`PROBE_NUM`, RFC 5227 clause 1.1).
const PROBES: u8 = 3;
/// The resolution of the clock of the programs, which may be behind by this much (`ktime_get_coarse`).
const TICK: Duration = Duration::from_millis(10);
/// The limits of probes per second, on all VLANs together and for one owner. An owner that adds thousands of addresses
/// must not delay the probes for others.
const RATE: usize = 200;
const SHARE: usize = 50;
const SECOND: Duration = Duration::from_secs(1);

/// How certain it is that an address is the endpoint's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The wire has been probed this many times. `next` is the time of the next probe, or the end of the wait for
    /// answers.
    Probing {
        times: u8,
        next: Duration,
    },
    Certain,
    /// A station on the wire claims the address. It has not answered this many probes, the first of which was sent at
    /// `since`. `next` is the time of the next probe, or the end of the wait for an answer.
    Claimed {
        unanswered: u8,
        since: Duration,
        next: Duration,
    },
}

/// The state of the addresses of all endpoints that are probed.
#[derive(Debug, Default)]
pub struct AddressProbes {
    /// The owner and the state of each address.
    addresses: BTreeMap<NeighborKey, (Owner, Standing)>,
    sent: SentProbes,
}

/// The numbers of probes in the second that began at `since`, in total and by owner.
#[derive(Debug, Default)]
struct SentProbes {
    since: Duration,
    all: usize,
    of: BTreeMap<Owner, usize>,
}

impl SentProbes {
    /// Returns the earliest time at which another probe for an owner is allowed.
    fn next(&self, owner: Owner) -> Duration {
        let of = self.of.get(&owner).copied().unwrap_or(0);
        match self.all >= RATE || of >= SHARE {
            true => self.since + SECOND,
            false => Duration::ZERO,
        }
    }

    /// Counts one more probe, and returns whether it is allowed.
    fn admit(&mut self, owner: Owner, now: Duration) -> bool {
        if now >= self.since + SECOND {
            *self = Self {
                since: now,
                ..Self::default()
            };
        }
        let may = self.next(owner) <= now;
        if may {
            self.all += 1;
            *self.of.entry(owner).or_default() += 1;
        }
        may
    }
}

impl AddressProbes {
    /// Marks in the tables how certain each address is. On a VLAN for which `matters` is true and where the host has a
    /// device that can probe, an address that nobody assigned is certain only after the wire was silent.
    pub fn assess(
        &mut self,
        tables: &mut DesiredTables,
        claims: &BTreeMap<NeighborKey, Claim>,
        matters: impl Fn(Vid) -> bool,
        now: Duration,
    ) {
        let mut standings = BTreeMap::new();
        for (&key, neighbor) in &mut tables.neighbors {
            let vid = key.vid();
            if key.vid == NeighborKey::ANYWHERE || neighbor.has(Neighbor::DOWN) {
                continue;
            }
            let claim = claims.get(&key).filter(|claim| claim.mac != neighbor.mac);
            let receiver = key.endpoint(neighbor.mac);
            // A station that has the endpoint's MAC may also have its address, so it is probed in the same way.
            let by_mac = claims.get(&NeighborKey::of_mac(receiver));
            let parent = tables.vlans.get(&vid);
            let prober = parent.filter(|parent| parent.ifindex != 0 && matters(vid));
            let is_assigned = neighbor.has(Neighbor::ASSIGNED);
            let before = self.addresses.get(&key).map(|(_, standing)| *standing);
            let standing = match (prober, claim.or(by_mac)) {
                (Some(parent), Some(claim)) => claimed(before, claim, parent.has(Parent::UP), now),
                (Some(parent), None) if !is_assigned => {
                    unclaimed(before, parent.has(Parent::UP), now)
                }
                _ => Standing::Certain,
            };
            let uncertainty = match standing {
                _ if is_assigned => 0,
                _ if claim.is_some() => Neighbor::FOREIGN,
                Standing::Probing { .. } => Neighbor::UNSURE,
                Standing::Claimed { .. } | Standing::Certain => 0,
            };
            neighbor.flags |= uncertainty;
            if prober.is_some() {
                let owner = Owner::of(receiver, tables.endpoints.get(&receiver));
                standings.insert(key, (owner, standing));
            }
        }
        self.addresses = standings;
    }

    /// Whether an address counts as the endpoint's, because no station on the wire claims it.
    pub fn is_certain(&self, key: &NeighborKey) -> bool {
        let standing = self.addresses.get(key).map(|(_, standing)| *standing);
        standing == Some(Standing::Certain)
    }

    /// Returns the time of the next probe, or of the end of a wait for an answer.
    pub fn due(&self) -> Option<Duration> {
        let due = |(owner, standing): &(Owner, Standing)| match *standing {
            Standing::Probing { times: TIMES, next } => Some(next),
            Standing::Claimed {
                unanswered: PROBES,
                next,
                ..
            } => Some(next),
            Standing::Probing { next, .. } | Standing::Claimed { next, .. } => {
                Some(next.max(self.sent.next(*owner)))
            }
            Standing::Certain => None,
        };
        self.addresses.values().filter_map(due).min()
    }

    /// Whether the wait for an answer has ended for an address, so that its state may change.
    pub fn is_ripe(&self, now: Duration) -> bool {
        let mut standings = self.addresses.values().map(|(_, standing)| *standing);
        standings.any(|standing| match standing {
            Standing::Probing { times: TIMES, next } => next <= now,
            standing => standing.is_refuted(now),
        })
    }

    /// Returns the claims that are refuted, because the claimant did not answer.
    pub fn refuted(
        &self,
        claims: &BTreeMap<NeighborKey, Claim>,
        now: Duration,
    ) -> Vec<NeighborKey> {
        let is_refuted = |(key, claim): &(&NeighborKey, &Claim)| {
            let standing = self.addresses.get(key).map(|(_, standing)| *standing);
            standing.is_some_and(|it| it.is_refuted(now) && !it.is_answered(claim))
        };
        let refuted = claims.iter().filter(is_refuted);
        refuted.map(|(key, _)| *key).collect()
    }

    /// Returns the addresses to be probed now, and counts the probes as sent.
    pub fn take_due(&mut self, now: Duration) -> Vec<NeighborKey> {
        let mut probes = vec![];
        for (&key, (owner, standing)) in &mut self.addresses {
            let then = match *standing {
                Standing::Probing { times, next } if times < TIMES && next <= now => {
                    let last = times + 1 == TIMES;
                    Standing::Probing {
                        times: times + 1,
                        next: now + if last { WAIT } else { SPACE },
                    }
                }
                Standing::Claimed {
                    unanswered,
                    since,
                    next,
                } if unanswered < PROBES && next <= now => Standing::Claimed {
                    unanswered: unanswered + 1,
                    since: if unanswered == 0 { now } else { since },
                    next: now + SECOND,
                },
                _ => continue,
            };
            if self.sent.admit(*owner, now) {
                *standing = then;
                probes.push(key);
            }
        }
        probes
    }
}

impl Standing {
    /// Whether the claimant has not answered, except perhaps at the last moment.
    fn is_refuted(self, now: Duration) -> bool {
        matches!(self, Self::Claimed { unanswered: PROBES, next, .. } if next <= now)
    }

    /// Whether the claimant was heard since it was first probed.
    fn is_answered(self, claim: &Claim) -> bool {
        let heard = Duration::from_nanos(claim.heard) + TICK;
        matches!(self, Self::Claimed { unanswered: 1.., since, .. } if since <= heard)
    }
}

/// Computes the state of an address that a station on the wire claims.
fn claimed(before: Option<Standing>, claim: &Claim, is_up: bool, now: Duration) -> Standing {
    let anew = |next| Standing::Claimed {
        unanswered: 0,
        since: now,
        next,
    };
    match before {
        // No probe can be sent.
        _ if !is_up => anew(Duration::MAX),
        Some(standing) if standing.is_answered(claim) => anew(now + REPEAT),
        Some(Standing::Claimed { next, .. }) if next == Duration::MAX => anew(now),
        Some(standing @ Standing::Claimed { .. }) => standing,
        _ => anew(now),
    }
}

/// Computes the state of an address that no station on the wire claims any more.
fn unclaimed(before: Option<Standing>, is_up: bool, now: Duration) -> Standing {
    let anew = |next| Standing::Probing { times: 0, next };
    match before {
        // No probe can be sent.
        _ if !is_up => anew(Duration::MAX),
        Some(standing) if standing.is_refuted(now) => Standing::Certain,
        None | Some(Standing::Claimed { .. }) => anew(now),
        Some(Standing::Probing { next, .. }) if next == Duration::MAX => anew(now),
        Some(Standing::Probing { times: TIMES, next }) if next <= now => Standing::Certain,
        Some(standing) => standing,
    }
}
