//! Kills a process after every single step of an attachment: the next `attach` takes over the remains, or `detach`
//! removes them.

use std::fs;

use vlanfast_tests::{
    net::{
        topology::Wire,
        traffic::{Traffic, rate},
    },
    require,
    run::{
        crash::killed_after,
        pins::{is_pinned, pins},
        program::binary,
        require::in_the_lab,
        residue::Residue,
    },
};

use super::{attach, detach, holders};

/// Returns the names of pins that should exist only for a moment.
fn halfway(trunk: &str) -> usize {
    let pins = fs::read_dir(pins(trunk)).unwrap().flatten();
    pins.filter(|pin| pin.file_name().to_string_lossy().starts_with("next_"))
        .count()
}

fn kill_after(wire: &Wire, step: usize, ingress: &str) -> Option<&'static str> {
    let mut command = wire.host.command(&binary());
    command.args(["attach", &wire.trunk, "--ingress", ingress]);
    killed_after(&mut command, step).unwrap()
}

/// Each process takes over what the previous one has left, however far it came.
#[test]
fn killed_after_any_step_of_taking_over_it_loses_no_packet() {
    require!("takeover", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    attach(&wire, &[]).kill().unwrap();
    let first = holders(&wire);
    let traffic = Traffic::start(&wire, rate()).unwrap();
    let (mut steps, mut left) = (vec![], 0);
    // Emulation is slow, so only every fourth step is tested there.
    let stride = if in_the_lab() { 4 } else { 1 };
    while let Some(step) = kill_after(&wire, stride * steps.len() + 1, "tc") {
        assert_eq!(holders(&wire), first, "after {step}, the last of {steps:?}");
        left += halfway(&wire.trunk);
        steps.push(step);
    }
    let (inwards, outwards) = traffic.stop().unwrap();
    println!(
        "figure: killed after each of {} steps of taking over, {left} pins left halfway: \
         in: {inwards}; out: {outwards}",
        steps.len()
    );
    let all = stride * steps.len();
    assert!(all > 16 && left > 0, "that is not all: {steps:?}");
    assert_eq!((inwards.lost(), outwards.lost()), (0, 0));

    let attached = attach(&wire, &["--ingress", "tc"]);
    assert_eq!((holders(&wire), halfway(&wire.trunk)), (first, 0));
    attached.kill().unwrap();
    detach(&wire.host, &wire.trunk);
    before
        .wait_until_as_before(&wire.host, &wire.trunk)
        .unwrap();
}

/// The process starts from nothing, over an older attachment, and on a change from TC to XDP and back.
#[test]
fn killed_after_any_step_it_leaves_what_detach_removes() {
    require!("detach", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    wire.keep_tags().unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    let clear = |after: &str| {
        if is_pinned(&wire.trunk) {
            detach(&wire.host, &wire.trunk);
        }
        if let Err(error) = before.wait_until_as_before(&wire.host, &wire.trunk) {
            panic!("killed after {after}: {error:#}");
        }
    };
    let ways = [
        (None, "tc"),
        (Some("tc"), "tc"),
        (Some("tc"), "xdp"),
        (Some("xdp"), "tc"),
    ];
    for (number, (old, new)) in ways.into_iter().enumerate() {
        // Emulation is slow, so only every eighth step is tested there, each time with an offset that the test above
        // leaves out.
        let steps = match in_the_lab() {
            true => (2 + 2 * number..).step_by(8),
            false => (1..).step_by(1),
        };
        for step in steps {
            if let Some(old) = old {
                attach(&wire, &["--ingress", old]).kill().unwrap();
            }
            let killed = kill_after(&wire, step, new);
            clear(&format!("step {step}, {killed:?}, from {old:?} to {new}"));
            if killed.is_none() {
                break;
            }
        }
    }
}
