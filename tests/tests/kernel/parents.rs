//! The egress program of a VLAN's own device, run on the loopback device in its place.

use aya::maps::{Array, HashMap};
use vlanfast::maps::load;
use vlanfast_common::{Bytes, Counters, NeighborKey, Policy, Route, Settings, Verdict};
use vlanfast_tests::{
    cases::{frame_case::FrameCase, shortcut::shortcutting},
    fixtures::tables::TableFixture,
    net::cpu::pin,
    require,
};

use super::{
    Counted, Loaded, carried_out,
    decisions::{ALL, passed, untagged},
};

/// The device on which `BPF_PROG_TEST_RUN` runs a program by default.
const LOOPBACK: u32 = 1;
const VID: u32 = 10;
const POLICY: Policy = Policy { shortcut: 1, ..ALL };

/// Loads the program for a device of VLAN 10, or of an unknown VLAN.
fn loaded(vid: Option<u32>) -> Loaded {
    let mut loaded = Loaded::new(load::PARENT, &TableFixture::new(POLICY).unwrap());
    if let Some(vid) = vid {
        let map = loaded.ebpf.map_mut("DEVICES").unwrap();
        let mut devices = HashMap::<_, u32, u32>::try_from(map).unwrap();
        devices.insert(LOOPBACK, vid, 0).unwrap();
    }
    loaded
}

/// Runs each frame twice, the second time with a warm cache, and compares the counts at the end.
fn meets(loaded: &mut Loaded, frames: &[FrameCase]) {
    let mut counters = Counters::default();
    for FrameCase {
        name,
        bytes,
        verdict,
    } in frames
    {
        for time in ["first", "second"] {
            let (code, left) = loaded.run(Bytes::new(bytes));
            let (expected_code, expected) = carried_out(load::PARENT, *verdict, bytes);
            assert_eq!(code, expected_code, "{name}, the {time} time");
            assert_eq!(left, expected, "{name}, the {time} time");
            counters.shortcut += u64::from(*verdict != Verdict::Pass);
        }
    }
    loaded.expected = match counters.shortcut {
        0 => Counted::new(),
        _ => Counted::from([(VID, counters)]),
    };
    loaded.counted_nothing_else();
}

#[test]
fn routed_packets_take_the_shortcut_at_the_vlan_device() {
    require!("parents", nix::unistd::geteuid().is_root(), "needs root");
    // Each CPU has a cache of its own.
    pin(0).unwrap();
    let frames = untagged(shortcutting());
    let taken = frames.iter().filter(|frame| frame.verdict != Verdict::Pass);
    assert!(taken.count() >= 14 && frames.len() >= 30);
    meets(&mut loaded(Some(VID)), &frames);
    // The reverse order shows that no frame uses the cached entry of another.
    let mut frames = frames;
    frames.reverse();
    meets(&mut loaded(Some(VID)), &frames);
    // Frames with a further tag, and frames on an unknown device, are passed.
    meets(&mut loaded(Some(VID)), &passed(shortcutting()));
    meets(&mut loaded(None), &passed(frames));
}

/// A cached route is valid during one heartbeat, and only while the tables are complete.
#[test]
fn cached_routes_expire_with_the_heartbeat() {
    require!("parents", nix::unistd::geteuid().is_root(), "needs root");
    pin(0).unwrap();
    let mut frames = untagged(shortcutting());
    frames.retain(|frame| frame.verdict != Verdict::Pass);
    let mut loaded = loaded(Some(VID));
    let are_taken = |loaded: &mut Loaded, settings: Settings, are_taken: bool| {
        let map = loaded.ebpf.map_mut("SETTINGS").unwrap();
        let mut map = Array::<_, Settings>::try_from(map).unwrap();
        map.set(0, settings, 0).unwrap();
        for FrameCase { name, bytes, .. } in &frames {
            let (_, left) = loaded.run(Bytes::new(bytes));
            assert_eq!(left != *bytes, are_taken, "{name}: {settings:?}");
        }
    };
    let settings = TableFixture::new(POLICY).unwrap().settings;
    let incomplete = Settings {
        incomplete: Settings::ENDPOINTS,
        ..settings
    };
    let late = Settings {
        // The time is shortly after the machine's start.
        heartbeat: 1,
        ..settings
    };
    are_taken(&mut loaded, settings, true);
    are_taken(&mut loaded, incomplete, false);
    are_taken(&mut loaded, late, false);
    are_taken(&mut loaded, settings, true);
    let map = loaded.ebpf.map_mut("ROUTES").unwrap();
    let mut routes = HashMap::<_, NeighborKey, Route>::try_from(map).unwrap();
    let keys: Vec<_> = routes.keys().map(Result::unwrap).collect();
    assert!(!keys.is_empty());
    keys.iter().for_each(|key| routes.remove(key).unwrap());
    are_taken(&mut loaded, settings, true);
    let another = Settings {
        heartbeat: settings.heartbeat - 1,
        ..settings
    };
    are_taken(&mut loaded, another, false);
}
