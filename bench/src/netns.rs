//! Moves the thread into a network namespace and back.

use std::fs::File;

use anyhow::{Context, Result};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns},
};
use vlanfast_tests::net::namespace::Netns;

/// Keeps the thread in a namespace until this is dropped.
pub struct Inside(File);

impl Inside {
    pub fn enter(netns: &Netns) -> Result<Self> {
        let back =
            File::open("/proc/thread-self/ns/net").context("failed to find our namespace")?;
        let path = netns.path();
        let there = File::open(&path).with_context(|| format!("failed to open {path}"))?;
        setns(there, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("failed to enter {path}"))?;
        Ok(Self(back))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        setns(&self.0, CloneFlags::CLONE_NEWNET).expect("we may go back to where we came from");
    }
}

/// The index of a device in its namespace.
pub fn ifindex(netns: &Netns, device: &str) -> Result<u32> {
    let _inside = Inside::enter(netns)?;
    if_nametoindex(device).with_context(|| format!("no device {device}"))
}
