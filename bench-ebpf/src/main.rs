//! The benchmark's own programs: what puts frames on the wire, and the design that vlanfast is not.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    helpers::{bpf_redirect, bpf_redirect_peer, bpf_skb_vlan_pop, bpf_skb_vlan_push},
    macros::{classifier, map, xdp},
    maps::{Array, HashMap},
    programs::{TcContext, XdpContext},
};

/// Bytes of a frame that are written anew each time.
const HEAD: usize = 64;
const C_TAG: u16 = 0x8100;

/// What is injected, and where. 72 bytes.
#[repr(C)]
pub struct Injection {
    /// The frame's first 64 bytes, in wire order.
    pub head: [u64; HEAD / 8],
    /// The device that sends it; its peer receives it.
    pub ifindex: u32,
    pub reserved: u32,
}

#[map]
static INJECTION: Array<Injection> = Array::with_max_entries(1, 0);

/// Run by `BPF_PROG_TEST_RUN` in live-frames mode: sends the frame. The kernel takes the same pages again
/// without resetting them, after the receiver has moved the addresses over the tag: so the whole head
/// is written every time.
#[xdp]
pub fn inject(ctx: XdpContext) -> u32 {
    let Some(injection) = INJECTION.get(0) else {
        return xdp_action::XDP_ABORTED;
    };
    let start = ctx.data();
    if start + HEAD > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the bounds were checked above, and a live frame starts at a multiple of 8.
    unsafe { *(start as *mut [u64; HEAD / 8]) = injection.head };
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(injection.ifindex, 0) as u32 }
}

/// What any XDP program costs.
#[xdp]
pub fn empty_xdp(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// What it costs to be rid of a frame by XDP.
#[xdp]
pub fn drop_xdp(_: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// What any TC program costs.
#[classifier]
pub fn empty_tc(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// A MAC address on a VLAN. 8 bytes, the address in wire order.
#[repr(C)]
pub struct Place {
    pub vid: u16,
    pub mac: [u16; 3],
}

/// The host's end of a container's veth pair.
#[map]
static CONTAINERS: HashMap<Place, u32> = HashMap::with_max_entries(1024, 0);

/// Where a container's frames leave.
#[repr(C)]
pub struct Uplink {
    pub ifindex: u32,
    pub vid: u32,
}

#[map]
static UPLINK: Array<Uplink> = Array::with_max_entries(1, 0);

/// On the trunk's ingress: straight into the container, if its end is a veth.
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
    let Some(ifindex) = (unsafe { CONTAINERS.get(&Place { vid, mac }) }) else {
        return TC_ACT_UNSPEC;
    };
    // SAFETY: the context is the kernel's.
    if unsafe { bpf_skb_vlan_pop(ctx.skb.skb) } != 0 {
        return TC_ACT_SHOT;
    }
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect_peer(*ifindex, 0) as i32 }
}

/// On the ingress of the host's end of the veth: tagged, out of the trunk.
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

/// Where packets of a VLAN go instead of to the router. 16 bytes, MAC addresses in wire order.
#[repr(C)]
pub struct Way {
    /// The device that receives them.
    pub ifindex: u32,
    /// The receiver's MAC, and the sender's.
    pub addresses: [u16; 6],
}

/// By the VID, or where there is no tag by the index of the device that sends them.
#[map]
static WAYS: HashMap<u32, Way> = HashMap::with_max_entries(16, 0);

/// What a shortcut costs that takes every IPv4 packet for one that the router would send on: it looks up where
/// to, rewrites and redirects.
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
    let Some(way) = (unsafe { WAYS.get(key) }) else {
        return TC_ACT_UNSPEC;
    };
    // TTL, and what that is to the checksum (RFC 1624).
    // SAFETY: the bounds were checked above.
    unsafe {
        *((start + 22) as *mut u8) -= 1;
        let checksum = (start + 24) as *mut u16;
        let sum = *checksum as u32 + 0x0100_u16.to_be() as u32;
        *checksum = (sum + (sum >> 16)) as u16;
        *(start as *mut [u16; 6]) = way.addresses;
    }
    // SAFETY: the context is the kernel's.
    if is_tagged && unsafe { bpf_skb_vlan_pop(ctx.skb.skb) } != 0 {
        return TC_ACT_SHOT;
    }
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(way.ifindex, BPF_F_INGRESS.into()) as i32 }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
