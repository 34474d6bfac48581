//! Address conflict detection (RFC 5227) for addresses that endpoints chose themselves. Such an address is probed on the
//! wire before it is trusted, and while a host there answers, it is that host's. This module is pure; times are of
//! CLOCK_MONOTONIC.

use std::{collections::BTreeMap, time::Duration};

use vlanfast_common::{Claim, Neighbor, NeighborKey, Parent, Vid};

use crate::state::{quotas::Owner, tables::DesiredTables};

/// How often the wire is asked before silence counts, how long after the first time for the second, and how long
/// after that an answer may take.
const TIMES: u8 = 2;
const SPACE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_millis(100);
/// Whether who claims an address is there is asked at once, and then this often: an announcement may be old, or a lie.
const REPEAT: Duration = Duration::from_secs(10);
/// Who does not answer so many questions, a second apart, is not there (`PROBE_NUM`, RFC 5227 clause 1.1).
const QUESTIONS: u8 = 3;
/// The programs' clock is behind by no more (`ktime_get_coarse`).
const TICK: Duration = Duration::from_millis(10);
/// No more questions than this in a second, on all VLANs together, and no more for one owner: whoever adds addresses
/// by the thousand must not keep the wire from being asked for anybody else's.
const RATE: usize = 200;
const SHARE: usize = 50;
const SECOND: Duration = Duration::from_secs(1);

/// How far an address is vouched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The wire was asked so often, and is to be asked again, or to have answered, at this time.
    Asked {
        times: u8,
        next: Duration,
    },
    Vouched,
    /// Somebody there says that it is his. He has not answered so many questions since the first of them, and is asked
    /// again, or has had his time, at this time.
    Claimed {
        unanswered: u8,
        since: Duration,
        next: Duration,
    },
}

/// What is known of the addresses of receivers.
#[derive(Debug, Default)]
pub struct AddressProbes {
    /// And whose they are.
    addresses: BTreeMap<NeighborKey, (Owner, Standing)>,
    asked: Asked,
}

/// What was asked in the second that began then, and for whom.
#[derive(Debug, Default)]
struct Asked {
    since: Duration,
    all: usize,
    of: BTreeMap<Owner, usize>,
}

impl Asked {
    /// When there may be another question for an owner.
    fn next(&self, owner: Owner) -> Duration {
        let of = self.of.get(&owner).copied().unwrap_or(0);
        match self.all >= RATE || of >= SHARE {
            true => self.since + SECOND,
            false => Duration::ZERO,
        }
    }

    /// One more, if there may be one by now.
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
    /// Says of each address how sure it is. Where it `matters`, and the host has a device
    /// that can ask, an address that nobody gave is sure once the wire was silent.
    pub fn judge(
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
            // Who has the receiver's MAC may have its address: he is asked just so.
            let by_mac = claims.get(&NeighborKey::of_mac(receiver));
            let parent = tables.vlans.get(&vid);
            let asker = parent.filter(|parent| parent.ifindex != 0 && matters(vid));
            let is_assigned = neighbor.has(Neighbor::ASSIGNED);
            let before = self.addresses.get(&key).map(|(_, standing)| *standing);
            let standing = match (asker, claim.or(by_mac)) {
                (Some(parent), Some(claim)) => claimed(before, claim, parent.has(Parent::UP), now),
                (Some(parent), None) if !is_assigned => {
                    unclaimed(before, parent.has(Parent::UP), now)
                }
                _ => Standing::Vouched,
            };
            let doubt = match standing {
                _ if is_assigned => 0,
                _ if claim.is_some() => Neighbor::FOREIGN,
                Standing::Asked { .. } => Neighbor::UNSURE,
                Standing::Claimed { .. } | Standing::Vouched => 0,
            };
            neighbor.flags |= doubt;
            if asker.is_some() {
                let owner = Owner::of(receiver, tables.endpoints.get(&receiver));
                standings.insert(key, (owner, standing));
            }
        }
        self.addresses = standings;
    }

    /// Whether the receiver's word has been taken for an address.
    pub fn is_vouched(&self, key: &NeighborKey) -> bool {
        let standing = self.addresses.get(key).map(|(_, standing)| *standing);
        standing == Some(Standing::Vouched)
    }

    /// When somebody is to be asked, or has had his time to answer.
    pub fn due(&self) -> Option<Duration> {
        let due = |(owner, standing): &(Owner, Standing)| match *standing {
            Standing::Asked { times: TIMES, next } => Some(next),
            Standing::Claimed {
                unanswered: QUESTIONS,
                next,
                ..
            } => Some(next),
            Standing::Asked { next, .. } | Standing::Claimed { next, .. } => {
                Some(next.max(self.asked.next(*owner)))
            }
            Standing::Vouched => None,
        };
        self.addresses.values().filter_map(due).min()
    }

    /// Whether an address has had its time, so that its standing may change.
    pub fn is_ripe(&self, now: Duration) -> bool {
        let mut standings = self.addresses.values().map(|(_, standing)| *standing);
        standings.any(|standing| match standing {
            Standing::Asked { times: TIMES, next } => next <= now,
            standing => standing.is_refuted(now),
        })
    }

    /// The claims of those who have not answered when they were asked for them.
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

    /// The addresses that the wire is to be asked for now; they count as asked.
    pub fn questions(&mut self, now: Duration) -> Vec<NeighborKey> {
        let mut questions = vec![];
        for (&key, (owner, standing)) in &mut self.addresses {
            let then = match *standing {
                Standing::Asked { times, next } if times < TIMES && next <= now => {
                    let last = times + 1 == TIMES;
                    Standing::Asked {
                        times: times + 1,
                        next: now + if last { PATIENCE } else { SPACE },
                    }
                }
                Standing::Claimed {
                    unanswered,
                    since,
                    next,
                } if unanswered < QUESTIONS && next <= now => Standing::Claimed {
                    unanswered: unanswered + 1,
                    since: if unanswered == 0 { now } else { since },
                    next: now + SECOND,
                },
                _ => continue,
            };
            if self.asked.admit(*owner, now) {
                *standing = then;
                questions.push(key);
            }
        }
        questions
    }
}

impl Standing {
    /// Nobody has answered, unless it was in the last moment.
    fn is_refuted(self, now: Duration) -> bool {
        matches!(self, Self::Claimed { unanswered: QUESTIONS, next, .. } if next <= now)
    }

    /// Whether a claim was heard since its claimant was asked.
    fn is_answered(self, claim: &Claim) -> bool {
        let heard = Duration::from_nanos(claim.heard) + TICK;
        matches!(self, Self::Claimed { unanswered: 1.., since, .. } if since <= heard)
    }
}

/// The standing of an address that somebody on the wire claims.
fn claimed(before: Option<Standing>, claim: &Claim, is_up: bool, now: Duration) -> Standing {
    let anew = |next| Standing::Claimed {
        unanswered: 0,
        since: now,
        next,
    };
    match before {
        // Nobody can be asked.
        _ if !is_up => anew(Duration::MAX),
        Some(standing) if standing.is_answered(claim) => anew(now + REPEAT),
        Some(Standing::Claimed { next, .. }) if next == Duration::MAX => anew(now),
        Some(standing @ Standing::Claimed { .. }) => standing,
        _ => anew(now),
    }
}

/// The standing of an address that nobody on the wire claims by now.
fn unclaimed(before: Option<Standing>, is_up: bool, now: Duration) -> Standing {
    let anew = |next| Standing::Asked { times: 0, next };
    match before {
        // Nothing can be asked.
        _ if !is_up => anew(Duration::MAX),
        Some(standing) if standing.is_refuted(now) => Standing::Vouched,
        None | Some(Standing::Claimed { .. }) => anew(now),
        Some(Standing::Asked { next, .. }) if next == Duration::MAX => anew(now),
        Some(Standing::Asked { times: TIMES, next }) if next <= now => Standing::Vouched,
        Some(standing) => standing,
    }
}
