//! Packets to a router and back, from which flows are learnt: the host, the kernel and the expectation must agree.

use std::{collections::BTreeMap, thread};

use aya::{Pod, maps::HashMap};
use vlanfast::maps::load;
use vlanfast_common::{Direction, FlowKey, Policy, Shortcut, Verdict, VlanPair};
use vlanfast_tests::{
    cases::learned::{Conversation, conversations},
    fixtures::tables::TableFixture,
    require,
};

use super::{Loaded, decisions::ALL};

/// Runs the conversations that fit a policy one after the other, and compares each of their frames.
fn agrees(policy: Policy, ingress: &'static str, alive: bool) {
    let fixture = || {
        let mut fixture = TableFixture::new(policy).unwrap();
        if !alive {
            fixture.settings.heartbeat = 1;
        }
        fixture
    };
    let mut loaded = Loaded::all(&[load::TX, ingress], &fixture());
    let mut conversations = conversations();
    conversations.retain(|said| said.refresh == policy.shortcut_refresh);
    assert!(conversations.len() > 3);
    for said in &conversations {
        let fixture = fixture();
        has(said, &fixture, &mut loaded, ingress, alive);
        assert_eq!(taken::<VlanPair, 6>(&mut loaded, "PAIRS"), fixture.pairs());
        assert_eq!(alive, !fixture.pairs().is_empty());
        taken::<FlowKey, 12>(&mut loaded, "FLOWS");
    }
    loaded.counted_nothing_else();
}

fn has(
    said: &Conversation,
    fixture: &TableFixture,
    loaded: &mut Loaded,
    ingress: &'static str,
    alive: bool,
) {
    for (number, heard) in said.frames.iter().enumerate() {
        thread::sleep(heard.after);
        fixture
            .now
            .set(fixture.now.get() + heard.after.as_nanos() as u64);
        let verdict = match alive {
            true => heard.verdict,
            false => Verdict::Pass,
        };
        loaded.program = match heard.direction {
            Direction::Tx => load::TX,
            Direction::Rx => ingress,
        };
        let at = format!("{}, frame {}", said.name, number + 1);
        loaded.meets(&at, &heard.bytes, heard.direction, verdict, fixture);
    }
}

/// Takes the entries that the programs have left in a map, and empties it.
fn taken<K: Pod + Ord, const N: usize>(loaded: &mut Loaded, name: &str) -> BTreeMap<K, [u64; N]> {
    let map = loaded.ebpf.map_mut(name).unwrap();
    let mut map = HashMap::<_, K, [u64; N]>::try_from(map).unwrap();
    let entries: BTreeMap<_, _> = map.iter().map(Result::unwrap).collect();
    for key in entries.keys() {
        map.remove(key).unwrap();
    }
    entries
}

fn learning(refresh: u32) -> Policy {
    Policy {
        shed: 0,
        shortcut: Shortcut::Learned as u32,
        shortcut_refresh: refresh,
        ..ALL
    }
}

#[test]
fn flows_that_the_router_forwards_take_the_shortcut() {
    require!("flows", nix::unistd::geteuid().is_root(), "needs root");
    for refresh in [0, 1] {
        for ingress in [load::RX, load::XDP] {
            agrees(learning(refresh), ingress, true);
        }
    }
}

#[test]
fn learning_works_with_all_other_features_on() {
    require!("flows", nix::unistd::geteuid().is_root(), "needs root");
    let policy = Policy {
        host_access: 1,
        shed: 1,
        deliver: 1,
        ..learning(0)
    };
    agrees(policy, load::RX, true);
}

#[test]
fn a_dry_run_learns_and_changes_no_packet() {
    require!("flows", nix::unistd::geteuid().is_root(), "needs root");
    let policy = Policy {
        dry_run: 1,
        ..learning(1)
    };
    agrees(policy, load::RX, true);
}

#[test]
fn without_a_heartbeat_nothing_is_learnt() {
    require!("flows", nix::unistd::geteuid().is_root(), "needs root");
    agrees(learning(0), load::RX, false);
}
