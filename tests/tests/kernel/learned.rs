//! Packets to a router and back, by which flows are learnt: the host, the kernel and the expectation must agree.

use std::thread;

use aya::maps::HashMap;
use vlanfast::datapath::load;
use vlanfast_common::{Direction, FlowKey, Policy, Shortcut, Verdict};
use vlanfast_tests::{
    decisions::{Said, conversations},
    require,
    world::World,
};

use super::{Counted, Loaded, by_host, carried_out, counters, decisions::ALL};

/// Has the conversations for which a policy is, one after the other, and compares each frame of them.
fn agrees(policy: Policy, ingress: &'static str, alive: bool) {
    let world = || {
        let mut world = World::new(policy).unwrap();
        if !alive {
            world.settings.heartbeat = 1;
        }
        world
    };
    // Loaded once, because under emulation that takes longer than all the rest.
    let mut loaded = Loaded::all(&[load::TX, ingress], &world());
    let mut expected = Counted::new();
    let mut conversations = conversations();
    conversations.retain(|said| said.refresh == policy.shortcut_refresh);
    assert!(conversations.len() > 3);
    for said in &conversations {
        has(said, &world(), &mut loaded, ingress, &mut expected, alive);
        forget(&mut loaded);
        assert_eq!(counters(&loaded.ebpf), expected, "{}", said.name);
    }
}

fn has(
    said: &Said,
    world: &World,
    loaded: &mut Loaded,
    ingress: &'static str,
    expected: &mut Counted,
    alive: bool,
) {
    for (number, heard) in said.frames.iter().enumerate() {
        let at = format!("{}, frame {}, by {ingress}", said.name, number + 1);
        thread::sleep(heard.after);
        world
            .now
            .set(world.now.get() + heard.after.as_nanos() as u64);
        let (verdict, counted) = by_host(world, &heard.bytes, heard.direction);
        let wanted = match alive {
            true => heard.verdict,
            false => Verdict::Pass,
        };
        assert_eq!(verdict, wanted, "{at}, by the host");
        for (key, counted) in counted {
            expected.entry(key).or_default().merge(&counted);
        }
        loaded.program = match heard.direction {
            Direction::Tx => load::TX,
            Direction::Rx => ingress,
        };
        let (code, left) = loaded.pass(&heard.bytes);
        let done = match world.policy.dry_run {
            0 => verdict,
            _ => Verdict::Pass,
        };
        let (expected_code, expected_frame) = carried_out(loaded.program, done, &heard.bytes);
        assert_eq!(code, expected_code, "{at}");
        assert_eq!(left, expected_frame, "{at}");
    }
}

fn forget(loaded: &mut Loaded) {
    let map = loaded.ebpf.map_mut("FLOWS").unwrap();
    let mut flows = HashMap::<_, FlowKey, [u64; 12]>::try_from(map).unwrap();
    let keys: Vec<_> = flows.keys().map(Result::unwrap).collect();
    for key in keys {
        flows.remove(&key).unwrap();
    }
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
fn what_the_router_sends_on_takes_the_shortcut_from_then_on() {
    require!("flows", nix::unistd::geteuid().is_root(), "needs root");
    for refresh in [0, 1] {
        for ingress in [load::RX, load::XDP] {
            agrees(learning(refresh), ingress, true);
        }
    }
}

#[test]
fn everything_else_may_be_switched_on_with_it() {
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
