//! Tests of the residue check: it judges only what its own test created, and finds what was left behind.

use std::{fs, path::PathBuf};

use vlanfast_tests::{
    net::{namespace::unique, topology::Wire},
    require,
    run::{pins::pins, program::Attached, residue::Residue},
};

#[test]
fn another_vlanfast_is_not_taken_for_a_leak() {
    require!("residue", nix::unistd::geteuid().is_root(), "needs root");
    let (wire, others) = (Wire::veth().unwrap(), Wire::veth().unwrap());
    let attach = |wire: &Wire| Attached::start(&wire.host, &wire.trunk, &[]).unwrap();
    let ends_meanwhile = attach(&others);
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    let ours = attach(&wire);
    ends_meanwhile.stop().unwrap();
    let starts_meanwhile = attach(&others);
    ours.stop().unwrap();
    before
        .wait_until_as_before(&wire.host, &wire.trunk)
        .unwrap();
    starts_meanwhile.stop().unwrap();
}

/// A pin that the test created, which is removed when this is dropped.
struct Kept(PathBuf);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_program_that_stays_pinned_elsewhere_is_found() {
    require!("residue", nix::unistd::geteuid().is_root(), "needs root");
    let wire = Wire::veth().unwrap();
    let before = Residue::of(&wire.host, &wire.trunk).unwrap();
    let attached = Attached::start(&wire.host, &wire.trunk, &[]).unwrap();
    let kept = Kept(PathBuf::from("/sys/fs/bpf").join(unique()));
    let program = pins(&wire.trunk).join("egress_program");
    fs::hard_link(program, &kept.0).unwrap();
    attached.stop().unwrap();
    let after = Residue::of(&wire.host, &wire.trunk).unwrap();
    let left = after.beyond(&before).join("\n");
    assert!(left.contains("program vlanfast_tx"), "{left}");
    drop(kept);
    before
        .wait_until_as_before(&wire.host, &wire.trunk)
        .unwrap();
}
