//! The BPF programs: the entry points, and a table of contents.
//!
//! This crate makes a [`Frame`](vlanfast_common::Frame) of what a hook is given, looks things up in
//! the maps, and carries out the verdict. All decisions are made in `vlanfast-common`.
//!
//! - [`xdp`] and [`tc`] hold what differs by hook: how bytes are read (`frame`), how a verdict is
//!   carried out (`act`), and the order of the steps (`program`). `tc/vlan_device.rs` is the
//!   shortcut from the VLANs' own devices.
//! - [`pipeline`] holds the steps that both hooks share.
//! - [`linear`] reads the headers straight from memory.
//! - [`lookup`] answers what decisions ask, from the [`maps`] and the switches that the loader set.
//! - [`count`] adds to the counters, and [`log`] writes the messages of `attach -v`.
#![no_std]
#![no_main]

mod count;
mod linear;
mod log;
mod lookup;
mod maps;
mod pipeline;
mod tc;
mod xdp;

use aya_ebpf::{
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use vlanfast_common::Direction;

/// Ingress of the trunk by XDP: runs in the driver, before the kernel allocates an skb.
#[xdp]
pub fn vlanfast_xdp(ctx: XdpContext) -> u32 {
    xdp::trunk(&ctx)
}

/// Ingress of the trunk by TC, on devices where XDP is not used.
#[classifier]
pub fn vlanfast_rx(ctx: TcContext) -> i32 {
    tc::trunk(&ctx, Direction::Rx)
}

/// Egress of the trunk.
#[classifier]
pub fn vlanfast_tx(ctx: TcContext) -> i32 {
    tc::trunk(&ctx, Direction::Tx)
}

/// Egress of a VLAN device, such as `eth0.10`, where `--shortcut allow` is on.
#[classifier]
pub fn vlanfast_parent(ctx: TcContext) -> i32 {
    tc::vlan_device(&ctx)
}

/// The kernel lets only programs under a GPL-compatible licence call the helpers used here.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
