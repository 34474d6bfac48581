//! The benchmark's own programs: one that puts frames on the wire, empty ones to compare with, and two
//! other designs: veth pairs with redirects, and a shortcut that checks nothing.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    helpers::{bpf_redirect, bpf_redirect_peer, bpf_skb_vlan_pop, bpf_skb_vlan_push},
    macros::{classifier, map, xdp},
    maps::{Array, HashMap},
    programs::{TcContext, XdpContext},
};

/// How many bytes of a frame are written anew each time.
const HEADERS_LEN: usize = 64;
/// TPID of an 802.1Q tag.
const C_TAG: u16 = 0x8100;

/// The frame that is injected, and the device that sends it. 72 bytes.
#[repr(C)]
pub struct Injection {
    /// The frame's first 64 bytes, in wire order.
    pub headers: [u64; HEADERS_LEN / 8],
    /// The ifindex of the device that sends the frame; the device's peer receives it.
    pub ifindex: u32,
    pub reserved: u32,
}

#[map]
static INJECTION: Array<Injection> = Array::with_max_entries(1, 0);

/// Sends the frame; `BPF_PROG_TEST_RUN` runs it in live-frames mode.
///
/// All headers are written every time: the kernel uses the same pages again without resetting them,
/// after the receiver has moved the addresses over the tag.
#[xdp]
pub fn inject(ctx: XdpContext) -> u32 {
    let Some(injection) = INJECTION.get(0) else {
        return xdp_action::XDP_ABORTED;
    };
    let start = ctx.data();
    if start + HEADERS_LEN > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the bounds were checked above, and a live frame starts at a multiple of 8.
    unsafe { *(start as *mut [u64; HEADERS_LEN / 8]) = injection.headers };
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(injection.ifindex, 0) as u32 }
}

/// Passes every frame: the cost of any XDP program.
#[xdp]
pub fn empty_xdp(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Drops every frame: the cost of a drop by XDP.
#[xdp]
pub fn drop_xdp(_: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Passes every frame: the cost of any TC program.
#[classifier]
pub fn empty_tc(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// A MAC address on a VLAN. 8 bytes, the address in wire order.
#[repr(C)]
pub struct ContainerKey {
    pub vid: u16,
    pub mac: [u16; 3],
}

/// The ifindex of the host's end of a container's veth pair.
#[map]
static CONTAINERS: HashMap<ContainerKey, u32> = HashMap::with_max_entries(1024, 0);

/// The trunk by which a container's frames leave, and their VLAN.
#[repr(C)]
pub struct Uplink {
    pub ifindex: u32,
    pub vid: u32,
}

#[map]
static UPLINK: Array<Uplink> = Array::with_max_entries(1, 0);

/// Runs on the trunk's ingress, and redirects a frame into its container, which has a veth.
#[classifier]
pub fn to_container(ctx: TcContext) -> i32 {
    let start = ctx.data();
    if start + 6 > ctx.data_end() {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: the bounds were checked above; frames start at an even address.
    let mac = unsafe { *(start as *const [u16; 3]) };
    // SAFETY: the context is the kernel's for as long as the program runs.
    let vid = unsafe { (*ctx.skb.skb).vlan_tci as u16 & 0xfff };
    // SAFETY: nobody writes to the map while frames flow.
    let Some(ifindex) = (unsafe { CONTAINERS.get(&ContainerKey { vid, mac }) }) else {
        return TC_ACT_UNSPEC;
    };
    // SAFETY: the context is the kernel's.
    if unsafe { bpf_skb_vlan_pop(ctx.skb.skb) } != 0 {
        return TC_ACT_SHOT;
    }
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect_peer(*ifindex, 0) as i32 }
}

/// Runs on the ingress of the host's end of the veth: tags a frame and redirects it out of the trunk.
#[classifier]
pub fn to_wire(ctx: TcContext) -> i32 {
    let Some(uplink) = UPLINK.get(0) else {
        return TC_ACT_UNSPEC;
    };
    // SAFETY: the context is the kernel's.
    if unsafe { bpf_skb_vlan_push(ctx.skb.skb, C_TAG.to_be(), uplink.vid as u16) } != 0 {
        return TC_ACT_SHOT;
    }
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(uplink.ifindex, 0) as i32 }
}

/// Where packets go that the router would forward. 16 bytes, MAC addresses in wire order.
#[repr(C)]
pub struct NextHop {
    /// The ifindex of the device that receives them.
    pub ifindex: u32,
    /// Destination and source MAC.
    pub addresses: [u16; 6],
}

/// By VID, or, of packets without a tag, by the ifindex of the device that sends them.
#[map]
static NEXT_HOPS: HashMap<u32, NextHop> = HashMap::with_max_entries(16, 0);

/// A shortcut that checks nothing: it takes every IPv4 packet for one that the router would forward,
/// looks up the next hop, rewrites and redirects.
#[classifier]
pub fn bare_shortcut(ctx: TcContext) -> i32 {
    let start = ctx.data();
    if start + 34 > ctx.data_end() {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: the bounds were checked above; frames start at an even address.
    if unsafe { *((start + 12) as *const u16) } != 0x0800_u16.to_be() {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: the context is the kernel's for as long as the program runs.
    let (is_tagged, key) = unsafe {
        match *ctx.skb.skb {
            skb if skb.vlan_present != 0 => (true, skb.vlan_tci & 0xfff),
            skb => (false, skb.ifindex),
        }
    };
    // SAFETY: nobody writes to the map while frames flow.
    let Some(next) = (unsafe { NEXT_HOPS.get(key) }) else {
        return TC_ACT_UNSPEC;
    };
    // Decrements the TTL, and updates the checksum (RFC 1624).
    // SAFETY: the bounds were checked above.
    unsafe {
        *((start + 22) as *mut u8) -= 1;
        let checksum = (start + 24) as *mut u16;
        let sum = *checksum as u32 + 0x0100_u16.to_be() as u32;
        *checksum = (sum + (sum >> 16)) as u16;
        *(start as *mut [u16; 6]) = next.addresses;
    }
    // SAFETY: the context is the kernel's.
    if is_tagged && unsafe { bpf_skb_vlan_pop(ctx.skb.skb) } != 0 {
        return TC_ACT_SHOT;
    }
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(next.ifindex, BPF_F_INGRESS.into()) as i32 }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
