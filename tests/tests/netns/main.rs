//! Level `netns`: live trunks on veth pairs in namespaces of their own, on the running kernel. No
//! 8021q is needed: frames come with their tags from packet sockets.

mod access;
mod adopt;
mod deliver;
mod exactness;
mod hardship;
mod life;
mod listeners;
mod offloads;
#[path = "../shared/pins.rs"]
mod pins;
mod refusals;
mod residue;
mod service;
mod storm;
mod sync;
mod tables;

use aya::Ebpf;
use vlanfast::maps::load;

/// Loads third-party programs for a test: the object's own programs, renamed to `stranger_rx`, `stranger_tx` and
/// `stranger_xdp`. With their real names they would be taken for those of a vlanfast whose pins are elsewhere.
fn strangers() -> Ebpf {
    let (ours, theirs) = (b"vlanfast_", b"stranger_");
    let mut object = load::object().to_vec();
    for at in 0..object.len() - ours.len() {
        if object[at..].starts_with(ours) {
            object[at..at + ours.len()].copy_from_slice(theirs);
        }
    }
    Ebpf::load(&object).unwrap()
}
